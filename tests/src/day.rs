//! A day between a controller and its CSMS, quicker than it passes: booting is left to the controller, the rest is here.
//!
//! Besides what the standard has, it holds what only the wire has: odd spacing, every script, numbers that no library
//! writes twice alike, 200 KB in a message, errors, and texts that are no frames. What the CSMS asks of the agent in
//! between is marked, by its ids, since it isn't to reach the controller.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::charge_point::ChargePoint;
use crate::csms::Csms;
use crate::peer::Line;
use crate::{LONG, wait_until};

/// The ids of what is asked of the agent begin so.
const OURS: &str = "ours-";

/// The agent's keys with two scripts.
pub const OUR_KEYS: [&str; 5] = [
    "InvokeCustomScript1",
    "InvokeCustomScript1Status",
    "InvokeCustomScript2",
    "InvokeCustomScript2Status",
    "SSHClientKey",
];

/// The controllers' own keys.
pub const THEIR_KEYS: [&str; 3] = ["HeartbeatInterval", "NumberOfConnectors", "Ünïcode"];

/// What the agent calls of its own accord.
const REPORTS: [&str; 2] = ["DataTransfer", "SecurityEventNotification"];

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The controller.
    Controller,
    /// The CSMS.
    Csms,
}

/// One thing that is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// The side's library makes a CALL with this payload, in snake case; it is answered.
    Call(Side, &'static str, Value),
    /// The side sends this text as it is, and waits for the answer to it if it is the CALL of this id.
    Say(Side, String, Option<String>),
    /// Both sides make a CALL at once: the controller's text and id, the CSMS's.
    Cross([(String, String); 2]),
    /// The CSMS asks for what is the agent's, all of it or a part.
    Ask {
        /// The action.
        action: &'static str,
        /// The payload, as it is written.
        payload: String,
        /// The answer.
        answer: Answer,
    },
}

/// How the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// ChangeConfiguration's status.
    Status(&'static str),
    /// The keys in GetConfiguration's answer, and the unknown ones.
    Keys(Vec<&'static str>, Vec<&'static str>),
}

/// The steps of a day, in which script 1's tunnel is opened to `destination` and closed again, several times.
pub fn day(destination: &str) -> Vec<Step> {
    let mut day = Day { steps: Vec::new(), serial: 0 };
    for hour in 0..24 {
        for minute in (0..60).step_by(5) {
            day.heartbeat(hour, minute);
            if minute % 15 == 0 {
                day.clock_aligned_values(hour, minute);
            }
        }
        match hour {
            2 => day.firmware(),
            3 => day.diagnostics(),
            4 => day.large(),
            5 => day.errors(),
            6 => day.words(),
            7.. => day.transaction(hour),
            _ => {}
        }
        day.configuration(hour);
        day.crossing();
        day.ours(hour, destination);
    }
    day.steps
}

struct Day {
    steps: Vec<Step>,
    serial: u32,
}

// === impl Day ===

impl Day {
    fn call(&mut self, side: Side, action: &'static str, payload: Value) {
        self.steps.push(Step::Call(side, action, payload));
    }

    /// A CALL as it is written; `ID` in it becomes its id, which is short, as many controllers have them.
    fn write(&mut self, side: Side, text: &str) {
        let id = self.id();
        self.steps.push(Step::Say(side, text.replace("ID", &id), Some(id)));
    }

    /// A text that nobody answers, or whose answer nobody waits for.
    fn shout(&mut self, side: Side, text: &str) {
        self.steps.push(Step::Say(side, text.to_owned(), None));
    }

    fn id(&mut self) -> String {
        self.serial += 1;
        self.serial.to_string()
    }

    fn heartbeat(&mut self, hour: u32, minute: u32) {
        match minute {
            0 => self.write(Side::Controller, "[2,\"ID\",\"Heartbeat\",{}]"),
            20 => self.write(Side::Controller, " [ 2 ,\t\"ID\",\r\n\"Heartbeat\" , {  } ] \n"),
            40 if hour.is_multiple_of(2) => self.write(Side::Controller, "[2,\"ID\",\"\\u0048eartbeat\",{}]"),
            _ => self.call(Side::Controller, "Heartbeat", json!({})),
        }
    }

    /// Numbers and times as meters write them.
    fn clock_aligned_values(&mut self, hour: u32, minute: u32) {
        let text = format!(
            r#"[2,"ID","MeterValues",{{"connectorId":0,"meterValue":[{{"timestamp":"2026-11-22T{hour:02}:{minute:02}:00.000Z",
            "sampledValue":[{{"value":"{minute}.10","context":"Sample.Clock","unit":"kWh"}},{{"value":"1e-7"}}]}}]}}]"#
        );
        self.write(Side::Controller, &text);
    }

    fn firmware(&mut self) {
        let payload = json!({"location": "ftp://example.com/fw.bin?a=1&b=%20", "retrieve_date": "2026-11-22T02:00:00Z"});
        self.call(Side::Csms, "UpdateFirmware", payload);
        for status in ["Downloading", "Downloaded", "Installing", "Installed"] {
            self.call(Side::Controller, "FirmwareStatusNotification", json!({ "status": status }));
        }
    }

    fn diagnostics(&mut self) {
        self.call(Side::Csms, "GetDiagnostics", json!({"location": "ftp://example.com/"}));
        for status in ["Uploading", "Uploaded", "Idle"] {
            self.call(Side::Controller, "DiagnosticsStatusNotification", json!({ "status": status }));
        }
    }

    fn large(&mut self) {
        let list: Vec<Value> = (0..2600)
            .map(|number| json!({"idTag": format!("TAG{number:015}"), "idTagInfo": {"status": "Accepted"}}))
            .collect();
        let list = serde_json::to_string(&list).expect("it is JSON");
        let text = format!(
            r#"[2,"ID","SendLocalList",{{"listVersion":7,"updateType":"Full","localAuthorizationList":{list}}}]"#
        );
        self.write(Side::Csms, &text);
        let letters = "aä€😀\\n".repeat(200_000 / 12);
        for side in [Side::Controller, Side::Csms] {
            let text = format!(r#"[2,"ID","DataTransfer",{{"vendorId":"com.example","data":"{letters}"}}]"#);
            self.write(side, &text);
        }
        let values: Vec<Value> = (0..1500)
            .map(|number| json!({"timestamp": "2026-11-22T04:00:00Z", "sampledValue": [{"value": format!("{number}.0"), "unit": "Wh"}]}))
            .collect();
        let values = serde_json::to_string_pretty(&values).expect("it is JSON");
        self.write(
            Side::Controller,
            &format!(r#"[2,"ID","MeterValues",{{"connectorId":1,"meterValue":{values}}}]"#),
        );
    }

    /// CALLs that aren't understood, answers that nobody asked for, and texts that are no frames.
    fn errors(&mut self) {
        for side in [Side::Controller, Side::Csms] {
            self.write(side, r#"[2,"ID","MakeCoffee",{"sugar":2}]"#);
            self.write(side, r#"[2,"ID","makecoffee",{}]"#);
            // Far longer than an id may be.
            let id = "ï".repeat(400);
            let text = format!(r#"[2,"{id}","MakeCoffee",{{}}]"#);
            self.steps.push(Step::Say(side, text, Some(id)));
            for text in [
                r#"[3,"nobody-asked",{"status":"Accepted"}]"#,
                r#"[3,"nobody-asked",null]"#,
                r#"[4,"nobody-asked","GenericError","", {} ]"#,
                r#"[4,"nobody-asked","OccurrenceConstraintViolation","what?",{"a":[1,2,{"b":null}]}]"#,
                r#"[5,"nobody-asked",{}]"#,
                r#"[2,"no-payload"]"#,
                "not JSON at all",
                "{\"a\":1}",
                "[]",
                "[2,\"unfinished\",\"Heartbeat\",{",
                " ",
            ] {
                self.shout(side, text);
            }
        }
        // Each breaks its schema, and is answered so.
        self.write(Side::Controller, r#"[2,"ID","StatusNotification",{"connectorId":"one"}]"#);
        self.write(Side::Controller, r#"[2,"ID","Authorize",{}]"#);
        self.write(Side::Controller, r#"[2,"ID","StopTransaction",{"transactionId":1e400,"x":0.10}]"#);
        self.write(Side::Csms, r#"[2,"ID","ChangeConfiguration",{"key":"HeartbeatInterval"}]"#);
        self.write(Side::Csms, r#"[2,"ID","DataTransfer",{}]"#);
    }

    /// Every script, and every way to write a letter.
    fn words(&mut self) {
        let words = [
            "Ünïcödé ß ñ ø",
            "充电桩 已连接",
            "зарядка",
            "شاحن",
            "चार्जर",
            "👩‍🔧🔌",
            "e\u{301}",
            "\u{2028}\u{2029}\u{feff}",
            r#"\u00e9\ud83d\ude00\ud800"#,
            r#"\\ \/ \b\f\n\r\t \" \u0000"#,
            "</script><!-- ' -->",
            "InvokeCustomScript1",
        ];
        for word in words {
            for side in [Side::Controller, Side::Csms] {
                let text = format!(r#"[2,"ID","DataTransfer",{{"vendorId":"com.example","data":"{word}"}}]"#);
                self.write(side, &text);
            }
        }
        // A key twice, and one that is ours where it means nothing.
        self.write(
            Side::Csms,
            r#"[2,"ID","DataTransfer",{"vendorId":"a","vendorId":"b","key":"SSHClientKey"}]"#,
        );
        self.write(
            Side::Controller,
            r#"[2,"ID","DataTransfer",{"vendorId":"org.ocpp-tunnel","messageId":"TunnelStatus"}]"#,
        );
    }

    fn transaction(&mut self, hour: u32) {
        let time = |minute: u32| format!("2026-11-22T{hour:02}:{minute:02}:00Z");
        let status = |status: &str| json!({"connector_id": 1, "error_code": "NoError", "status": status});
        self.call(Side::Csms, "RemoteStartTransaction", json!({"id_tag": "ABC", "connector_id": 1}));
        self.call(Side::Controller, "StatusNotification", status("Preparing"));
        self.call(Side::Controller, "Authorize", json!({"id_tag": "ABC"}));
        let start = json!({"connector_id": 1, "id_tag": "ABC", "meter_start": 0, "timestamp": time(0)});
        self.call(Side::Controller, "StartTransaction", start);
        self.call(Side::Controller, "StatusNotification", status("Charging"));
        let period = json!({"start_period": 0, "limit": 16.0});
        let schedule = json!({"charging_rate_unit": "A", "charging_schedule_period": [period]});
        let profile = json!({"charging_profile_id": 1, "stack_level": 0, "charging_profile_purpose": "TxProfile",
            "charging_profile_kind": "Relative", "charging_schedule": schedule});
        self.call(
            Side::Csms,
            "SetChargingProfile",
            json!({"connector_id": 1, "cs_charging_profiles": profile}),
        );
        for minute in 1..=10 {
            let value =
                json!({"value": format!("{}", minute * 120), "measurand": "Energy.Active.Import.Register"});
            let values = json!({"connector_id": 1, "transaction_id": 1,
                "meter_value": [{"timestamp": time(minute), "sampled_value": [value]}]});
            self.call(Side::Controller, "MeterValues", values);
        }
        // Three that are sent without waiting, as some controllers do; the last one is waited for.
        for minute in 11..=12 {
            let id = self.id();
            let payload = format!(
                r#"{{"connectorId":1,"meterValue":[{{"timestamp":"{}","sampledValue":[]}}]}}"#,
                time(minute)
            );
            self.shout(Side::Controller, &format!(r#"[2,"{id}","MeterValues",{payload}]"#));
        }
        self.write(Side::Controller, r#"[2,"ID","Heartbeat",{}]"#);
        self.call(Side::Csms, "RemoteStopTransaction", json!({"transaction_id": 1}));
        let stop =
            json!({"transaction_id": 1, "meter_stop": 1320, "timestamp": time(13), "reason": "Remote"});
        self.call(Side::Controller, "StopTransaction", stop);
        self.call(Side::Controller, "StatusNotification", status("Available"));
    }

    /// What the CSMS asks of the controller's own configuration.
    fn configuration(&mut self, hour: u32) {
        match hour % 6 {
            0 => {
                let payload = json!({"key": ["HeartbeatInterval", "NoSuchKey"]});
                self.call(Side::Csms, "GetConfiguration", payload);
            }
            1 => {
                let payload = json!({"key": "HeartbeatInterval", "value": (300 + hour).to_string()});
                self.call(Side::Csms, "ChangeConfiguration", payload);
            }
            2 => {
                let text = "[2, \"ID\", \"GetConfiguration\", {\"key\" : [ \"\\u00dcn\\u00efcode\" ] }]";
                self.write(Side::Csms, text);
            }
            3 => {
                let payload = json!({"key": "InvokeCustomScript12", "value": "x"});
                self.call(Side::Csms, "ChangeConfiguration", payload);
            }
            4 => self.call(Side::Csms, "TriggerMessage", json!({"requested_message": "MeterValues"})),
            _ => self.call(Side::Csms, "ChangeAvailability", json!({"connector_id": 1, "type": "Operative"})),
        }
    }

    /// The same id on both sides at the same moment: ids belong to a direction.
    fn crossing(&mut self) {
        let id = self.id();
        self.steps.push(Step::Cross([
            (format!(r#"[2,"{id}","Heartbeat",{{}}]"#), id.clone()),
            (format!(r#"[2,"{id}","GetLocalListVersion",{{}}]"#), id),
        ]));
    }

    fn ours(&mut self, hour: u32, destination: &str) {
        let change = |value: &str, status| {
            let payload = format!(r#"{{"key":"InvokeCustomScript1", "value":"{value}"}}"#);
            ("ChangeConfiguration", payload, Answer::Status(status))
        };
        let get = |payload: &str, keys: &[&'static str], unknown: &[&'static str]| {
            ("GetConfiguration", payload.to_owned(), Answer::Keys(keys.to_vec(), unknown.to_vec()))
        };
        let all = [THEIR_KEYS.as_slice(), &OUR_KEYS].concat();
        let (action, payload, answer) = match hour % 8 {
            0 => change(destination, "Accepted"),
            1 => get(r#"{"key":[]}"#, &all, &[]),
            2 => get(
                r#"{"key":["NoSuchKey","InvokeCustomScript1Status","Ünïcode"]}"#,
                &["Ünïcode", "InvokeCustomScript1Status"],
                &["NoSuchKey"],
            ),
            3 => get(r#"{"key": ["SSHClientKey" ]}"#, &["SSHClientKey"], &[]),
            4 => change("nobody@elsewhere.example", "Rejected"),
            5 => get("{}", &all, &[]),
            6 => change("", "Accepted"),
            _ => get(
                r#"{"key":["invokecustomscript2","HeartbeatInterval"]}"#,
                &["HeartbeatInterval", "InvokeCustomScript2"],
                &[],
            ),
        };
        self.steps.push(Step::Ask { action, payload, answer });
    }
}

/// Plays the steps, one after the other.
///
/// # Panics
/// If something that is to be answered isn't, or the agent's answer is another than it should be.
pub async fn play(steps: &[Step], controller: &mut ChargePoint, csms: &mut Csms) {
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Call(side, action, payload) => {
                let answer = match side {
                    Side::Controller => controller.call(action, payload.clone()).await,
                    Side::Csms => csms.call(action, payload.clone()).await,
                };
                assert!(answer["failed"].is_null(), "{side:?} calls {action}: {answer}");
            }
            Step::Say(side, text, until) => {
                match side {
                    Side::Controller => controller.say(text, until.as_deref()).await,
                    Side::Csms => csms.say(text, until.as_deref()).await,
                };
            }
            Step::Cross([(up, up_id), (down, down_id)]) => {
                tokio::join!(controller.say(up, Some(up_id)), csms.say(down, Some(down_id)));
            }
            Step::Ask { action, payload, answer } => {
                let id = format!("{OURS}{number}");
                let frame = csms.say(&format!(r#"[2,"{id}","{action}",{payload}]"#), Some(&id)).await;
                judge(&frame, answer);
            }
        }
    }
}

fn judge(frame: &Value, answer: &Answer) {
    assert_eq!(frame[0], 3, "{frame}");
    match answer {
        Answer::Status(status) => assert_eq!(frame[2]["status"], *status, "{frame}"),
        Answer::Keys(keys, unknown) => {
            let entries = frame[2]["configurationKey"].as_array().into_iter().flatten();
            let mut found: Vec<&str> = entries.filter_map(|entry| entry["key"].as_str()).collect();
            let mut wanted = keys.clone();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{frame}");
            let names = frame[2]["unknownKey"].as_array().into_iter().flatten();
            assert_eq!(names.filter_map(Value::as_str).collect::<Vec<_>>(), *unknown, "{frame}");
        }
    }
}

/// What of a day was the agent's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// CALLs that it made.
    pub calls: usize,
    /// CALLs of the CSMS that it answered, or added to the answer of.
    pub asked: usize,
}

/// Waits until the same texts have passed at both ends, in the same order, but for what was the agent's own.
///
/// # Panics
/// If they differ for long.
pub async fn is_the_same_on_both_sides(controller: &mut ChargePoint, csms: &mut Csms) -> Own {
    let end = tokio::time::Instant::now() + LONG;
    wait_until("both ends have the same texts", LONG * 2, async || {
        let (theirs, csms) = (controller.transcript().await, csms.transcript().await);
        let ids: HashSet<&str> = calls(&theirs.sent).map(|line| &*line.id).collect();
        let own: HashSet<&str> =
            calls(&csms.received).map(|line| &*line.id).filter(|id| !ids.contains(id)).collect();
        for line in calls(&csms.received).filter(|line| own.contains(&*line.id)) {
            assert!(REPORTS.contains(&&*line.action), "nobody made this CALL: {line:?}");
        }
        let not_ours = |line: &&Line| !line.id.starts_with(OURS);
        let is_own = |line: &&Line, calls: bool| own.contains(&*line.id) && (line.kind == Some(2)) == calls;
        let up: [Vec<&Line>; 2] = [
            theirs.sent.iter().filter(not_ours).collect(),
            csms.received.iter().filter(not_ours).filter(|line| !is_own(line, true)).collect(),
        ];
        let down: [Vec<&Line>; 2] = [
            csms.sent.iter().filter(not_ours).filter(|line| !is_own(line, false)).collect(),
            theirs.received.iter().filter(not_ours).collect(),
        ];
        let differs = [("up", &up), ("down", &down)].into_iter().find_map(|(name, [sent, received])| {
            let at = (0..sent.len().max(received.len())).find(|at| sent.get(*at) != received.get(*at))?;
            Some(format!("{name}, text {at}: sent {:?}, received {:?}", sent.get(at), received.get(at)))
        });
        if let Some(differs) = differs {
            assert!(tokio::time::Instant::now() < end, "{differs}");
            return None;
        }
        let asked = csms.sent.iter().filter(|line| line.id.starts_with(OURS)).count();
        Some(Own { calls: own.len(), asked })
    })
    .await
}

fn calls(lines: &[Line]) -> impl Iterator<Item = &Line> {
    lines.iter().filter(|line| line.kind == Some(2))
}
