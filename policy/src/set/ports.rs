//! Port ranges, and sets of ports as bits.

use std::ops::RangeInclusive;

/// Which of the 65,536 ports are in. 8 KiB once anything is.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortSet {
    words: Box<[u64]>,
}

impl PortSet {
    pub(crate) fn add(&mut self, ports: RangeInclusive<u16>) {
        if self.words.is_empty() {
            self.words = vec![0; 1024].into();
        }
        for port in ports {
            if let Some(word) = self.words.get_mut(usize::from(port / 64)) {
                *word |= 1 << (port % 64);
            }
        }
    }

    pub(crate) fn contains(&self, port: u16) -> bool {
        self.words.get(usize::from(port / 64)).is_some_and(|word| word >> (port % 64) & 1 == 1)
    }
}

/// Ascending, disjoint, not adjacent.
pub(crate) fn normalized(ports: &[RangeInclusive<u16>]) -> Box<[RangeInclusive<u16>]> {
    let mut sorted: Vec<_> = ports.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_unstable_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=(*last.end()).max(*range.end());
            }
            _ => merged.push(range),
        }
    }
    merged.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_when_they_touch() {
        assert_eq!(*normalized(&[8000..=8100, 443..=443, 8101..=8200, 444..=500]), [443..=500, 8000..=8200]);
        assert_eq!(*normalized(&[1..=65535, 65535..=65535]), [1..=65535]);
        assert_eq!(*normalized(&[]), []);
    }

    #[test]
    fn a_set_holds_its_edges() {
        let mut set = PortSet::default();
        assert!(!set.contains(0));
        set.add(1..=1);
        set.add(63..=64);
        set.add(65535..=65535);
        let held: Vec<u16> = (0..=65535).filter(|port| set.contains(*port)).collect();
        assert_eq!(held, [1, 63, 64, 65535]);
    }
}
