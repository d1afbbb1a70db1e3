//! A day's traffic between real charge points and real CSMSs, of two makers each: every text arrives byte for byte,
//! in its order, whatever the agent asks and answers in between.

use ocpp_tunnel_tests::charge_point::{self, ChargePoint};
use ocpp_tunnel_tests::csms::{Csms, Options};
use ocpp_tunnel_tests::day::{Step, day, is_the_same_on_both_sides, play};
use ocpp_tunnel_tests::peer::Library;
use ocpp_tunnel_tests::site::Site;

/// The harness itself.
#[tokio::test]
async fn without_the_bridge_the_two_ends_hear_the_same() {
    for [of_csms, of_controller] in pairs() {
        let options = Options { library: of_csms, lenient: true, ..Options::default() };
        let mut csms = Csms::start(options).await;
        let mut controller = ChargePoint::booted(charge_point::Options::new(of_controller, csms.url())).await;
        let steps: Vec<Step> = day("").into_iter().filter(|step| !matches!(step, Step::Ask { .. })).collect();
        play(&steps, &mut controller, &mut csms).await;
        let own = is_the_same_on_both_sides(&mut controller, &mut csms).await;
        assert_eq!((own.calls, own.asked), (0, 0), "{of_csms:?} and {of_controller:?}");
    }
}

#[tokio::test]
async fn a_day_passes_the_bridge_byte_for_byte_while_the_csms_asks_for_our_keys_in_between() {
    for [of_csms, of_controller] in pairs() {
        let options = Options { library: of_csms, lenient: true, ..Options::default() };
        let mut site = Site::start(options).await;
        let mut controller = site.booted(of_controller).await;
        let steps = day(&site.rig.sshd.destination());
        let asks = steps.iter().filter(|step| matches!(step, Step::Ask { .. })).count();
        play(&steps, &mut controller, &mut site.rig.csms).await;

        let own = is_the_same_on_both_sides(&mut controller, &mut site.rig.csms).await;
        assert_eq!(own.asked, asks, "{of_csms:?} and {of_controller:?}");
        assert!(own.calls > 0, "the agent's reports were in between");
        assert_eq!(controller.count("connections").await, 1, "{of_csms:?} and {of_controller:?}");
    }
}

fn pairs() -> impl Iterator<Item = [Library; 2]> {
    Library::BOTH.into_iter().flat_map(|csms| Library::BOTH.map(|controller| [csms, controller]))
}
