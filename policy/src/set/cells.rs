//! Which of many adjoining ranges of numbers holds one.

/// An IPv4 or IPv6 address as a number.
pub(crate) trait Number: Copy + Ord {
    /// `(self - lowest) >> shift`, 0 where `self` is lower.
    fn slot(self, lowest: Self, shift: u32) -> usize;
    /// How many bits the distance from `lowest` takes, at most one less than the type has.
    fn width(self, lowest: Self) -> u32;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn slot(self, lowest: Self, shift: u32) -> usize {
                (self.saturating_sub(lowest) >> shift).try_into().unwrap_or(usize::MAX)
            }

            fn width(self, lowest: Self) -> u32 {
                (<$type>::BITS - self.saturating_sub(lowest).leading_zeros()).min(<$type>::BITS - 1)
            }
        }
    };
}
number!(u32);
number!(u128);

/// Cells that follow each other without gaps, each with a value.
///
/// A table of slots of equal width, about one for two cells, narrows the search to few of them: where cells are spread
/// evenly a lookup touches three cache lines, and never looks at more than `log2` of all.
#[derive(Debug, Default)]
pub(crate) struct Cells<T> {
    /// Where each cell starts, ascending, and its value; the last reaches to the end.
    cells: Box<[(T, u32)]>,
    /// How many cells start before each slot does; one more than there are slots.
    slots: Box<[u32]>,
    lowest: T,
    shift: u32,
}

impl<T: Number + Default> Cells<T> {
    /// `cells` ascend. Slots span the starts after the first, which a prefix of length 0 puts far away.
    pub(crate) fn new(cells: Vec<(T, u32)>) -> Self {
        let span = cells.get(1).or(cells.first()).zip(cells.last());
        let Some(((lowest, _), (highest, _))) = span.map(|(lowest, highest)| (*lowest, *highest)) else {
            return Cells::default();
        };
        let wanted = (cells.len() / 2).next_power_of_two().ilog2();
        let shift = highest.width(lowest).saturating_sub(wanted);
        let count = highest.slot(lowest, shift) + 1;
        let mut slots: Vec<u32> = vec![0; count + 1];
        for (start, _) in cells.iter().skip(1) {
            // The cell starts before every later slot.
            if let Some(next) = slots.get_mut(start.slot(lowest, shift) + 1) {
                *next += 1;
            }
        }
        // The first cell starts before every slot but the first.
        if let Some(second) = slots.get_mut(1) {
            *second += 1;
        }
        let mut sum = 0;
        for slot in &mut slots {
            sum += *slot;
            *slot = sum;
        }
        Cells { cells: cells.into(), slots: slots.into(), lowest, shift }
    }

    /// The value of the cell that holds `at`; `None` below the first.
    pub(crate) fn find(&self, at: T) -> Option<u32> {
        let slot = at.slot(self.lowest, self.shift).min(self.slots.len().checked_sub(2)?);
        let (from, to) = (*self.slots.get(slot)? as usize, *self.slots.get(slot + 1)? as usize);
        let within = self.cells.get(from..to)?;
        let after = from + within.partition_point(|(start, _)| *start <= at);
        self.cells.get(after.checked_sub(1)?).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::Cells;

    fn plainly(cells: &[(u128, u32)], at: u128) -> Option<u32> {
        cells.iter().rev().find(|(start, _)| *start <= at).map(|(_, value)| *value)
    }

    /// Near the ends, near a common start, and anywhere.
    fn number() -> impl Strategy<Value = u128> {
        prop_oneof![
            0..8_u128,
            (u128::MAX - 8)..=u128::MAX,
            (0x2600_u128 << 112)..(0x2600_u128 << 112) + 64,
            any::<u128>(),
            (0..=u128::from(u32::MAX)),
        ]
    }

    proptest! {
        #[test]
        fn the_cell_is_found(starts in btree_set(number(), 0..40), asked in proptest::collection::vec(number(), 20)) {
            let cells: Vec<(u128, u32)> = starts.iter().copied().zip(0..).collect();
            let index = Cells::new(cells.clone());
            for at in asked.into_iter().chain(starts.iter().flat_map(|at| [*at, at.saturating_sub(1), at.saturating_add(1)])) {
                prop_assert_eq!(index.find(at), plainly(&cells, at), "{} in {:?}", at, cells);
            }
        }

        #[test]
        fn the_cell_is_found_in_32_bits(starts in btree_set(any::<u32>(), 0..40), asked in proptest::collection::vec(any::<u32>(), 20)) {
            let cells: Vec<(u32, u32)> = starts.iter().copied().zip(0..).collect();
            let wide: Vec<(u128, u32)> = cells.iter().map(|(start, value)| (u128::from(*start), *value)).collect();
            let index = Cells::new(cells);
            for at in asked.into_iter().chain(starts.iter().copied()) {
                prop_assert_eq!(index.find(at), plainly(&wide, at.into()), "{} in {:?}", at, wide);
            }
        }
    }
}
