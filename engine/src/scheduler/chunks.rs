//! How prompts share a step's token budget.

/// Tokens for each prompt, given what each still needs, oldest first.
///
/// Half of the budget goes to the oldest prompt, so that it ends whatever arrives after it. The other half
/// goes to the shortest of the rest, so that a short prompt does not wait for a long one. Prompts of equal
/// length are thus computed one after the other, which ends each as early as possible.
pub(super) fn share(budget: usize, needs: &[usize]) -> Vec<usize> {
    let mut shares = vec![0; needs.len()];
    let Some(oldest) = needs.first() else { return shares };
    shares[0] = budget.div_ceil(2).min(*oldest);
    let mut left = budget - shares[0];
    let mut rest: Vec<usize> = (1..needs.len()).collect();
    rest.sort_by_key(|index| needs[*index]);
    for index in rest {
        // Behind an equal or longer prompt the oldest one keeps its turn.
        if needs[index] >= *oldest {
            break;
        }
        shares[index] = needs[index].min(left);
        left -= shares[index];
    }
    for (share, need) in shares.iter_mut().zip(needs) {
        let more = left.min(need - *share);
        *share += more;
        left -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_prompt_passes_a_long_one_that_still_advances() {
        assert_eq!(share(256, &[5000, 40]), [216, 40]);
        assert_eq!(share(256, &[5000, 1000, 200]), [128, 0, 128]);
    }

    #[test]
    fn equal_prompts_are_computed_one_after_the_other() {
        assert_eq!(share(256, &[300, 300, 300]), [256, 0, 0]);
        assert_eq!(share(256, &[44, 300, 300]), [44, 212, 0]);
    }

    proptest! {
        #[test]
        fn the_budget_is_used_up_and_never_exceeded(budget in 0_usize..600, needs in proptest::collection::vec(2_usize..1000, 0..12)) {
            let shares = share(budget, &needs);
            prop_assert!(shares.iter().zip(&needs).all(|(share, need)| share <= need));
            prop_assert_eq!(shares.iter().sum::<usize>(), budget.min(needs.iter().sum()));
            prop_assert!(needs.is_empty() || shares[0] >= needs[0].min(budget.div_ceil(2)));
        }
    }
}
