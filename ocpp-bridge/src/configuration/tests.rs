use proptest::prelude::*;

use super::{standard::Kind, *};

/// TC_019 and the reference's list: the 21 required keys of the Core profile.
const CORE: [&str; 21] = [
    "AuthorizeRemoteTxRequests",
    "ClockAlignedDataInterval",
    "ConnectionTimeOut",
    "ConnectorPhaseRotation",
    "GetConfigurationMaxKeys",
    "HeartbeatInterval",
    "LocalAuthorizeOffline",
    "LocalPreAuthorize",
    "MeterValuesAlignedData",
    "MeterValuesSampledData",
    "MeterValueSampleInterval",
    "NumberOfConnectors",
    "ResetRetries",
    "StopTransactionOnEVSideDisconnect",
    "StopTransactionOnInvalidId",
    "StopTxnAlignedData",
    "StopTxnSampledData",
    "SupportedFeatureProfiles",
    "TransactionMessageAttempts",
    "TransactionMessageRetryInterval",
    "UnlockConnectorOnEVSideDisconnect",
];

fn keys(answer: &GetConfigurationResponse) -> Vec<&str> {
    answer.configuration_key.iter().flatten().map(|known| known.key.as_str()).collect()
}

#[test]
fn every_required_key_is_there_with_its_access() {
    let mut registry = Registry::new(2);
    let all = registry.get(&[] as &[&str]);
    assert_eq!(all.unknown_key, None);
    for key in CORE {
        let found = all.configuration_key.iter().flatten().find(|known| known.key == key).unwrap();
        let readonly =
            ["GetConfigurationMaxKeys", "NumberOfConnectors", "SupportedFeatureProfiles"].contains(&key);
        assert_eq!(found.readonly, readonly, "{key}");
        assert!(found.value.is_some() || key == HEARTBEAT_INTERVAL, "{key}");
    }
    assert_eq!(keys(&all).len(), STANDARD.len());
    assert_eq!(registry.value("numberofconnectors"), Some("2"));
    assert_eq!(registry.value("SupportedFeatureProfiles"), Some("Core,RemoteTrigger"));
    assert_eq!(registry.value("GetConfigurationMaxKeys"), Some("100"));
    for key in ["GetConfigurationMaxKeys", "NumberOfConnectors", "SupportedFeatureProfiles"] {
        assert!(matches!(registry.change(key, "1"), Change::Refused(_)), "{key}");
    }
}

#[test]
fn every_default_is_a_value_of_its_kind() {
    for key in &STANDARD {
        if let Some(default) = key.default {
            assert_eq!(key.kind.normalise(default).as_deref(), Ok(default), "{}", key.name);
        }
    }
}

#[test]
fn listed_keys_are_answered_once_and_unknown_ones_named() {
    let registry = Registry::new(0);
    let answer = registry.get(&["resetretries", "Nope", "RESETRETRIES", "nope", "ConnectionTimeOut"]);
    assert_eq!(keys(&answer), ["ResetRetries", "ConnectionTimeOut"]);
    assert_eq!(answer.unknown_key, Some(vec!["Nope".to_owned()]));
    let answer = registry.get(&["Nope"]);
    assert_eq!(answer.configuration_key, Some(vec![]));
}

#[test]
fn absent_value_is_left_out_of_the_json() {
    let mut registry = Registry::new(0);
    registry.register("Mine", Access::ReadWrite).unwrap();
    let json = serde_json::to_string(&registry.get(&["mine"])).unwrap();
    assert_eq!(json, r#"{"configurationKey":[{"key":"Mine","readonly":false}]}"#);
}

#[test]
fn a_write_only_key_never_shows_its_value() {
    let mut registry = Registry::new(0);
    registry.register("AuthorizationKey", Access::WriteOnly).unwrap();
    assert!(matches!(registry.change("authorizationkey", "0123456789abcdef"), Change::Ask { .. }));
    registry.put("AuthorizationKey", Some("0123456789abcdef".to_owned()));
    let json = serde_json::to_string(&registry.get(&["AuthorizationKey"])).unwrap();
    assert_eq!(json, r#"{"configurationKey":[{"key":"AuthorizationKey","readonly":false}]}"#);
    assert!(!format!("{registry:?}").contains("0123456789abcdef"));
}

#[test]
fn the_keys_of_the_security_extension_are_there() {
    let mut registry = Registry::new(0);
    assert_eq!(registry.value("AdditionalRootCertificateCheck"), Some("false"));
    assert!(matches!(registry.change("AdditionalRootCertificateCheck", "true"), Change::Refused(_)));
    let changed = registry.change("cponame", "Städtische Werke");
    assert_eq!(changed, Change::Changed { name: "CpoName", value: "Städtische Werke".to_owned() });
    assert!(matches!(registry.change("CpoName", "a\u{7}"), Change::Refused(_)));
}

#[test]
fn names_are_checked_and_unique_without_regard_to_case() {
    let mut registry = Registry::new(0);
    registry.register("Mine", Access::ReadWrite).unwrap();
    assert!(matches!(registry.register("mINE", Access::ReadOnly), Err(RegisterError::Taken(_))));
    assert!(matches!(registry.register("heartbeatinterval", Access::ReadOnly), Err(RegisterError::Taken(_))));
    for name in ["", "a b", "ключ", "a\n", &"k".repeat(51)] {
        assert!(matches!(registry.register(name, Access::ReadOnly), Err(RegisterError::Name(_))), "{name}");
    }
    let fitting =
        (0..MAX_KEYS).take_while(|n| registry.register(&format!("k{n}"), Access::ReadOnly).is_ok()).count();
    assert_eq!(fitting, MAX_KEYS - STANDARD.len() - 1);
    assert!(matches!(registry.register("surplus", Access::ReadOnly), Err(RegisterError::Full(_))));
}

#[test]
fn embedders_keys_are_asked_or_refused() {
    let mut registry = Registry::new(0);
    registry.register("Mine", Access::ReadWrite).unwrap();
    registry.register("Seen", Access::ReadOnly).unwrap();
    assert_eq!(registry.change("MINE", "x"), Change::Ask { name: "Mine".to_owned() });
    assert!(matches!(registry.change("mine", &"x".repeat(501)), Change::Refused(_)));
    assert!(matches!(registry.change("seen", "x"), Change::Refused(_)));
    assert_eq!(registry.change("other", "x"), Change::Unknown);
    assert_eq!(registry.value("Mine"), None, "only the embedder sets its values");
}

#[test]
fn standard_values_are_judged_by_their_kind() {
    let mut registry = Registry::new(0);
    let mut change = |key: &str, value: &str| match registry.change(key, value) {
        Change::Changed { value, .. } => Some(value),
        Change::Unchanged => Some(value.to_owned()),
        Change::Refused(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(change("LocalPreAuthorize", "TRUE").as_deref(), Some("true"));
    assert_eq!(change("LocalPreAuthorize", "yes"), None);
    assert_eq!(change("ConnectionTimeOut", "0120").as_deref(), Some("120"));
    for value in ["-1", "", "1.5", " 1", "2147483648", "9223372036854775808"] {
        assert_eq!(change("ConnectionTimeOut", value), None, "{value}");
    }
    assert_eq!(change("MeterValuesSampledData", "Voltage.L1, SoC").as_deref(), Some("Voltage.L1,SoC"));
    assert_eq!(change("MeterValuesSampledData", "Voltage.L1-N").as_deref(), Some("Voltage.L1-N"));
    assert_eq!(change("MeterValuesSampledData", "").as_deref(), Some(""));
    for value in ["Voltage.L9", "Nonsense", "SoC,,SoC", ",", "soc"] {
        assert_eq!(change("MeterValuesSampledData", value), None, "{value}");
    }
    assert_eq!(change("MeterValuesSampledData", &vec!["SoC"; 51].join(",")), None);
    assert_eq!(change("ConnectorPhaseRotation", "0.RST,1.RTS").as_deref(), Some("0.RST,1.RTS"));
    assert_eq!(change("ConnectorPhaseRotation", "0.XYZ"), None);
    assert_eq!(change("ConnectorPhaseRotation", "a.RST"), None);
    assert_eq!(change("HeartbeatInterval", "0"), None);
    assert_eq!(change("WebSocketPingInterval", "0").as_deref(), Some("0"));
    assert_eq!(change("WebSocketPingInterval", "-5"), None);
}

proptest! {
    #[test]
    fn any_change_leaves_a_value_that_fits_or_none(key in "[ -~]{0,60}", index in 0..STANDARD.len(), value in ".{0,600}") {
        let mut registry = Registry::new(0);
        let _ = registry.change(&key, &value);
        let _ = registry.change(STANDARD[index].name, &value);
        for known in registry.get(&[] as &[&str]).configuration_key.into_iter().flatten() {
            prop_assert!(known.value.is_none_or(|value| value.chars().count() <= MAX_VALUE_CHARS));
        }
    }

    #[test]
    fn normalising_twice_changes_nothing_more(value in "[0-9truefalsTRUE.,SoCL -]{0,20}") {
        let integer = Kind::Integer { min: 0, max: u32::MAX };
        for kind in [Kind::Boolean, integer, Kind::Measurands, Kind::PhaseRotations, Kind::Profiles] {
            if let Ok(once) = kind.normalise(&value) {
                prop_assert_eq!(kind.normalise(&once), Ok(once));
            }
        }
    }

    #[test]
    fn a_registered_key_is_found_in_any_case(name in "[!-~]{1,50}") {
        let mut registry = Registry::new(0);
        prop_assume!(registry.register(&name, Access::ReadWrite).is_ok());
        for spelling in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
            prop_assert_eq!(registry.change(&spelling, "v"), Change::Ask { name: name.clone() });
        }
    }

    #[test]
    fn every_requested_key_is_known_or_unknown(requested in proptest::collection::vec("[a-cA-C]{0,2}|ResetRetries", 1..20)) {
        let mut registry = Registry::new(0);
        registry.register("a", Access::ReadOnly).unwrap();
        let answer = registry.get(&requested);
        let unknown = answer.unknown_key.clone().unwrap_or_default();
        for key in &requested {
            let known = keys(&answer).iter().any(|known| known.eq_ignore_ascii_case(key));
            prop_assert!(known != unknown.iter().any(|unknown| unknown.eq_ignore_ascii_case(key)));
        }
    }

    #[test]
    fn any_sequence_of_changes_keeps_types_and_bounds(
        steps in proptest::collection::vec((any::<bool>(), 0..=STANDARD.len(), any_value()), 1..60),
    ) {
        let mut registry = Registry::new(2);
        registry.register("Mine", Access::ReadWrite).unwrap();
        let count = keys(&registry.get(&[] as &[&str])).len();
        for (by_csms, index, value) in steps {
            let name = STANDARD.get(index).map_or("Mine", |key| key.name);
            let before = registry.value(name).map(str::to_owned);
            if by_csms {
                match registry.change(name, &value) {
                    Change::Changed { value, .. } => prop_assert_eq!(registry.value(name), Some(&*value)),
                    Change::Unchanged | Change::Refused(_) | Change::Ask { .. } => {
                        prop_assert_eq!(registry.value(name), before.as_deref(), "{}", name);
                    }
                    other => prop_assert!(false, "{name}: {other:?}"),
                }
            } else {
                registry.put(name, Some(value));
            }
            for key in &STANDARD {
                if let Some(value) = registry.value(key.name) {
                    prop_assert_eq!(key.kind.normalise(value), Ok(value.to_owned()), "{}", key.name);
                }
            }
            let all = registry.get(&[] as &[&str]);
            prop_assert_eq!(keys(&all).len(), count);
            for known in all.configuration_key.into_iter().flatten() {
                prop_assert!(known.value.is_none_or(|value| value.chars().count() <= MAX_VALUE_CHARS));
            }
        }
    }
}

/// Values of every kind, in range and out of it, and anything else.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{0,11}",
        "true|FALSE|yes",
        "(SoC|Voltage|Voltage.L1|Nonsense)(, ?(SoC|Voltage)){0,60}",
        "([0-9]{1,3}\\.)?(RST|XYZ|NotApplicable)",
        ".{0,40}",
        "x{490,510}",
    ]
}
