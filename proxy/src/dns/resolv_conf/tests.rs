use super::*;

fn servers(text: &str) -> Vec<String> {
    ResolvConf::parse(text).servers.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn nameservers_of_both_families_with_scope() {
    let text = "# comment\nnameserver 192.0.2.1\nnameserver\t2001:db8::53 # site\n;x\nnameserver fe80::1%3\n\
                nameserver ::1%lo\noptions edns0\n";
    assert_eq!(servers(text), ["192.0.2.1:53", "[2001:db8::53]:53", "[fe80::1%3]:53", "[::1%1]:53"]);
}

#[test]
fn what_is_no_address_is_skipped() {
    let text = "nameserver\nnameserver example.test\n nameserver 192.0.2.1\nnameserver 192.0.2.2%3\n\
                nameserver fe80::1%../x\nNAMESERVER 192.0.2.3\nnameserver fe80::1%nosuchlink0\n";
    assert_eq!(servers(text), Vec::<String>::new());
}

#[test]
fn the_last_search_line_counts() {
    let text = "domain first.test\nsearch default.svc.cluster.local svc.cluster.local _bad.test .\n";
    let search: Vec<_> = ResolvConf::parse(text).search.iter().map(|name| name.to_string()).collect();
    assert_eq!(search, ["default.svc.cluster.local", "svc.cluster.local"]);
}
