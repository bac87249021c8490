//! Synthetic addresses: one name, one address, so that the name carries the permission.

mod ledger;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sidegate_policy::HostName;

use self::ledger::Ledger;

/// 198.18.0.0/15, set aside for benchmarks (RFC 2544) and never routed.
const V4_BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Blocks of 256 addresses in it.
const V4_BLOCKS: u32 = 512;
/// Usable addresses in a block: `.0` and `.255` look like network and broadcast addresses to some clients.
const V4_BLOCK: u32 = 254;
/// fd00:5de6::/64, unique local (RFC 4193).
const V6_BASE: u128 = 0xfd00_5de6_u128 << 96;
/// All slots; each has one address of either family.
const SLOTS: u32 = V4_BLOCKS * V4_BLOCK;
/// Names that may have addresses at once. Far fewer than slots, so that a free one is always near.
const NAMES: usize = 16_384;

/// The mapping between names and addresses of 198.18.0.0/15 and fd00:5de6::/64. Stable while the proxy lives.
///
/// A name's address is drawn from the name, so that it mostly comes out the same again even where nothing is
/// persisted; a file ([`SyntheticAddresses::load`]) keeps it the same always. An address is never given to another
/// name: a client may hold on to it, and would be led astray. When no more names fit, further ones get none.
#[derive(Debug, Default)]
pub struct SyntheticAddresses {
    assigned: Mutex<Assigned>,
}

#[derive(Debug, Default)]
struct Assigned {
    slots: HashMap<HostName, Slot>,
    names: HashMap<Slot, HostName>,
    ledger: Option<Ledger>,
}

/// A place in both ranges, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot(u32);

impl SyntheticAddresses {
    /// The mapping kept in a file: read now, appended to with every new name.
    ///
    /// Never fails: a file that can't be read or makes no sense is replaced, one that can't be written is given up,
    /// both with an error in the log; the mapping then lives in memory.
    pub fn load(path: &Path) -> Self {
        let (ledger, kept) = Ledger::open(path);
        let mut assigned = Assigned { ledger, ..Assigned::default() };
        for (slot, name) in kept {
            assigned.slots.insert(name.clone(), slot);
            assigned.names.insert(slot, name);
        }
        SyntheticAddresses { assigned: Mutex::new(assigned) }
    }

    /// Whether an address lies in a synthetic range, assigned or not.
    pub fn is_synthetic(address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => u32::from(v4) & 0xfffe_0000 == V4_BASE,
            IpAddr::V6(v6) => u128::from(v6) >> 64 == V6_BASE >> 64,
        }
    }

    /// The addresses of a name, assigned on first use; `None` when the range is exhausted.
    pub fn assign(&self, host: &HostName) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let mut assigned = self.locked();
        let slot = match assigned.slots.get(host) {
            Some(slot) => *slot,
            None => assigned.add(host)?,
        };
        Some((slot.v4(), slot.v6()))
    }

    /// The name that an address was assigned to.
    pub fn name_of(&self, address: IpAddr) -> Option<HostName> {
        self.locked().names.get(&Slot::of(address)?).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, Assigned> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Assigned {
    fn add(&mut self, host: &HostName) -> Option<Slot> {
        if self.slots.len() >= NAMES {
            return None;
        }
        let first = Slot::preferred(host);
        let mut candidates = (0..SLOTS).map(|step| Slot((first.0 + step) % SLOTS));
        let slot = candidates.find(|slot| !self.names.contains_key(slot))?;
        if let Entry::Vacant(place) = self.names.entry(slot) {
            place.insert(host.clone());
        }
        self.slots.insert(host.clone(), slot);
        if let Some(ledger) = &mut self.ledger {
            ledger.append(slot, host);
        }
        Some(slot)
    }
}

impl Slot {
    /// FNV-1a of the name. It need not resist collisions: two names on one slot get neighbouring ones.
    fn preferred(host: &HostName) -> Slot {
        let hash = host.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Slot(u32::try_from(hash % u64::from(SLOTS)).unwrap_or(0))
    }

    fn of(address: IpAddr) -> Option<Slot> {
        let slot = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let offset = u32::from(v4).checked_sub(V4_BASE)?;
                let (block, place) = (offset / 256, offset % 256);
                if !(1..=V4_BLOCK).contains(&place) {
                    return None;
                }
                block.checked_mul(V4_BLOCK)?.checked_add(place - 1)?
            }
            IpAddr::V6(v6) => {
                let place = u128::from(v6).checked_sub(V6_BASE)?.checked_sub(1)?;
                u32::try_from(place).ok()?
            }
        };
        (slot < SLOTS).then_some(Slot(slot))
    }

    fn v4(self) -> Ipv4Addr {
        Ipv4Addr::from(V4_BASE + self.0 / V4_BLOCK * 256 + self.0 % V4_BLOCK + 1)
    }

    fn v6(self) -> Ipv6Addr {
        Ipv6Addr::from(V6_BASE + u128::from(self.0) + 1)
    }
}

#[cfg(test)]
mod tests;
