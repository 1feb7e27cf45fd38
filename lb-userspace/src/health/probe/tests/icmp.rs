//! Echoes of this host; needs CAP_NET_RAW or a suitable `net.ipv4.ping_group_range`.

use super::*;

#[tokio::test]
async fn this_host_answers() {
    for target in ["127.0.0.1:7", "[::1]:0"] {
        assert_eq!(result(&CheckKind::Icmp, target.parse().unwrap()).await, Ok(()), "{target}");
    }
}

#[tokio::test]
async fn many_at_once_find_their_own_replies() {
    let prober = prober(&CheckKind::Icmp).unwrap();
    let dials: Vec<_> = (1..=40).map(|i| Dial::to(([127, 0, 0, 1 + i % 4], 0).into())).collect();
    let mut probes: Vec<_> = dials.iter().map(|dial| Box::pin(run(&*prober, dial, LONG))).collect();
    // All have sent before the first reply is looked at.
    std::future::poll_fn(|context| {
        probes.retain_mut(|probe| match probe.as_mut().poll(context) {
            std::task::Poll::Ready(outcome) => {
                assert_eq!(outcome.result, Ok(()));
                false
            }
            std::task::Poll::Pending => true,
        });
        if probes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn source_and_interface() {
    let to = Dial::to("127.0.0.1:0".parse().unwrap());
    let good =
        Dial { source: Some("127.0.0.2".parse().unwrap()), interface: Some("lo".into()), ..to.clone() };
    assert_eq!(probe(&CheckKind::Icmp, &good, LONG).await.result, Ok(()));
    let bad = Dial { source: Some("192.0.2.99".parse().unwrap()), ..to.clone() };
    let found = words(probe(&CheckKind::Icmp, &bad, LONG).await.result);
    assert_eq!(found, ("192.0.2.99 is no address of this host".into(), "local"));
    let bad = Dial { interface: Some("no-such-if".into()), ..to };
    assert_eq!(words(probe(&CheckKind::Icmp, &bad, LONG).await.result).0, "no interface no-such-if");
}
