use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn renewal_comes_at_half_of_the_life_give_or_take_a_tenth(start in 0u64..1 << 33, length in 300u64..1 << 26, jitter: f64) {
        let validity = Validity { not_before: at(start), not_after: at(start + length) };
        let share = (validity.renew_at(jitter).as_secs() - start) as f64 / length as f64;
        prop_assert!((0.39..=0.601).contains(&share), "{share}");
    }

    #[test]
    fn nothing_outlives_its_issuer(now in 0u64..1 << 33, lifetime in 0u64..1 << 30, begin in 0u64..1 << 33, length in 0u64..1 << 30) {
        let issuer = Validity { not_before: at(begin), not_after: at(begin + length) };
        let made = Validity::from_now(at(now), Duration::from_secs(lifetime)).within(issuer);
        prop_assert!(made.not_before >= issuer.not_before && made.not_after <= issuer.not_after);
    }

    #[test]
    fn a_retry_leaves_time_for_others(failures: u32, left in 8u64..1 << 24, jitter: f64) {
        let wait = retry_after(failures, Duration::from_secs(left), jitter);
        prop_assert!(wait >= Duration::from_millis(500) && wait <= Duration::from_secs(60));
        prop_assert!(wait <= Duration::from_secs(left / 8 + 1));
    }
}

#[test]
fn it_holds_on_both_of_its_bounds() {
    let validity = Validity { not_before: at(100), not_after: at(200) };
    assert_eq!([99, 100, 200, 201].map(|second| validity.holds(at(second))), [false, true, true, false]);
    assert!(!validity.expired(at(200)) && validity.expired(at(201)));
    assert_eq!((validity.spent(at(50)), validity.spent(at(150)), validity.spent(at(900))), (0.0, 0.5, 1.0));
}

#[test]
fn it_begins_before_it_is_issued() {
    let validity = Validity::from_now(at(1_000), LEAF);
    assert_eq!((validity.not_before, validity.not_after), (at(940), at(4_600)));
}
