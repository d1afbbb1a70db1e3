//! A single try: what the CSMS says to BootNotification, and nothing else that it might want.

use ocpp_bridge::{BootInfo, RegistrationStatus, link};
use serde_json::{Value, json};

use crate::{
    csms::{Csms, Peer},
    settings,
};

fn boot() -> BootInfo {
    BootInfo { vendor: "ACME".into(), model: "Box".into(), serial_number: None, firmware_version: None }
}

/// What comes of a try with a CSMS that does this once it has BootNotification.
async fn registration(serve: impl AsyncFnOnce(&mut Peer, Value)) -> Result<RegistrationStatus, String> {
    let csms = Csms::start().await;
    let settings = settings(&csms.url);
    let serving = async {
        let mut peer = csms.accept().await;
        let call = peer.receive().await;
        assert_eq!((&call[2], &call[3]["chargePointVendor"]), (&json!("BootNotification"), &json!("ACME")));
        serve(&mut peer, call[1].clone()).await;
        // Until it has said goodbye.
        while peer.next().await.is_some() {}
    };
    let boot = boot();
    let (attempt, ()) = tokio::join!(link::attempt(&settings.urls[0], &settings, &boot), serving);
    attempt.unwrap().registration
}

#[tokio::test]
async fn the_csmss_answer_to_bootnotification_is_told_as_it_is() {
    for (text, status) in [
        ("Accepted", RegistrationStatus::Accepted),
        ("Pending", RegistrationStatus::Pending),
        ("Rejected", RegistrationStatus::Rejected),
    ] {
        let told = registration(async |peer, id| peer.send(json!([3, id, {"status": text}])).await).await;
        assert_eq!(told, Ok(status));
    }
}

#[tokio::test]
async fn what_is_no_answer_is_said_in_words() {
    let error = registration(async |peer, id| {
        peer.send(json!([4, id, "InternalError", "the database is away", {}])).await;
    });
    assert!(error.await.unwrap_err().contains("InternalError: the database is away"));
    let nonsense = registration(async |peer, id| peer.send(json!([3, id, {"status": "Maybe"}])).await);
    assert!(nonsense.await.unwrap_err().contains("none of Accepted"));
    let closed = registration(async |peer, _| peer.socket.close(None).await.unwrap());
    assert!(closed.await.unwrap_err().contains("closed the connection instead"));
}

#[tokio::test]
async fn whatever_the_csms_asks_for_meanwhile_is_refused_with_the_reason() {
    let told = registration(async |peer, id| {
        let answer =
            peer.call("7", "ChangeConfiguration", json!({"key": "HeartbeatInterval", "value": "9"})).await;
        assert_eq!((&answer[0], &answer[1], &answer[2]), (&json!(4), &json!("7"), &json!("GenericError")));
        peer.send(json!([3, "another", {"status": "Rejected"}])).await;
        peer.send(json!([3, id, {"status": "Accepted"}])).await;
    });
    assert_eq!(told.await, Ok(RegistrationStatus::Accepted));
}
