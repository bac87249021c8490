use tokio::time::advance;

use super::*;

fn rule(name: &str) -> RuleFacts {
    RuleFacts { policy: "p".into(), name: name.into(), reason: None, place: ("p.yaml".into(), 1) }
}

/// How many of `asked` pass at once.
fn pass(budgets: &Budgets, rule: &RuleFacts, limit: RequestLimit, asked: usize) -> usize {
    (0..asked).filter(|_| budgets.take(Direction::Egress, rule, limit).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_then_the_rate() {
    let (budgets, web) = (Budgets::new(), rule("web"));
    let limit = RequestLimit { per_second: 10, burst: 5 };
    assert_eq!(pass(&budgets, &web, limit, 50), 5);
    let wait = budgets.take(Direction::Egress, &web, limit).unwrap_err();
    assert_eq!(wait, Duration::from_millis(100), "the next token");
    advance(wait).await;
    assert_eq!(pass(&budgets, &web, limit, 50), 1);
    // In no second do more pass than the rate, and what was not asked for is kept up to a burst.
    let mut passed = 0;
    for _ in 0..1000 {
        advance(Duration::from_millis(1)).await;
        passed += pass(&budgets, &web, limit, 3);
    }
    assert_eq!(passed, 10);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(pass(&budgets, &web, limit, 50), 5);
}

#[tokio::test(start_paused = true)]
async fn each_rule_and_each_limit_has_its_own() {
    let (budgets, limit) = (Budgets::new(), RequestLimit { per_second: 1, burst: 2 });
    assert_eq!(pass(&budgets, &rule("a"), limit, 9), 2);
    assert_eq!(pass(&budgets, &rule("b"), limit, 9), 2);
    assert_eq!(pass(&budgets, &rule("a"), RequestLimit { burst: 3, ..limit }, 9), 3);
    budgets.take(Direction::Ingress, &rule("a"), limit).expect("the other direction");
    assert_eq!(pass(&budgets, &rule("a"), limit, 9), 0, "the same rule, whatever came between");
}

#[tokio::test(start_paused = true)]
async fn the_highest_rate_is_exact_enough() {
    let (budgets, limit) = (Budgets::new(), RequestLimit { per_second: 1_000_000, burst: 1_000_000 });
    assert_eq!(pass(&budgets, &rule("a"), limit, 1_000_100), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn rules_of_the_past_are_forgotten() {
    let (budgets, limit) = (Budgets::new(), RequestLimit { per_second: 1, burst: 1 });
    for number in 0..10 * BUCKETS {
        assert_eq!(pass(&budgets, &rule(&format!("r{number}")), limit, 1), 1);
        advance(Duration::from_millis(2)).await;
    }
    assert!(budgets.full_at.lock().unwrap().len() <= BUCKETS);
}
