use super::*;
use crate::lifetime::at;

#[test]
fn each_phase_waits_for_what_the_next_one_needs() {
    let rotation = Rotation::new(at(1_000), Duration::from_secs(60), 4, Duration::from_secs(3_600));
    assert_eq!((rotation.phase(at(1_000)), rotation.next(at(1_000))), (Phase::Publish, Some(at(1_240))));
    assert_eq!((rotation.phase(at(1_239)), rotation.phase(at(1_240))), (Phase::Publish, Phase::Use));
    assert_eq!(
        rotation.retire_at(),
        at(1_240 + 3_600 + 120),
        "a leaf issued in the last second, a clock behind"
    );
    assert_eq!(
        (rotation.phase(rotation.retire_at()), rotation.next(rotation.retire_at())),
        (Phase::Retired, None)
    );
    assert_eq!(rotation.phase(at(5)), Phase::Publish, "a clock that went back");
}

#[test]
fn three_to_five_hints_pass_whatever_is_asked_for() {
    let hint = Duration::from_secs(10);
    let waits = |hints| Rotation::new(at(0), hint, hints, hint).use_at();
    assert_eq!([0, 3, 5, 99].map(waits), [at(30), at(30), at(50), at(50)]);
}
