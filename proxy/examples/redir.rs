use sidegate_proxy::redirect::*;
fn main() {
    let mode = std::env::args().nth(1).unwrap();
    let mut n = Netlink::netfilter().unwrap();
    match mode.as_str() {
        "lo" => prepare_loopback().unwrap(),
        "print" => println!("{}", Plan::new(&Spec::sidecar(1337), &["eth0".into()])),
        "run" => { let mut s = Spec::run(); s.udp = udp(); println!("{:?}", install(&mut n, &s).unwrap().frames) }
        "sidecar" => { let mut s = Spec::sidecar(1337); s.udp = udp(); s.inbound = Some(15006); println!("{:?}", install(&mut n, &s).unwrap().frames) }
        "udp" => replace_udp(&mut n, &udp()).unwrap(),
        "remove" => remove(&mut n).unwrap(),
        _ => unreachable!(),
    }
}
fn udp() -> Vec<sidegate_policy::set::UdpDestination> {
    [("10.9.0.0/24", 100..=200), ("10.9.0.5/32", 443..=443), ("fd09::/64", 443..=443)].map(|(n, ports)| sidegate_policy::set::UdpDestination { net: n.parse().unwrap(), ports }).to_vec()
}
