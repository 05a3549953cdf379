//! Does a socket that sends garbage, nothing or too much, or takes nothing, disturb nobody else?

use rumqttc::v5::mqttbytes::v5::PubAckReason;

use super::*;

#[tokio::test]
async fn garbage_on_one_socket_does_not_disturb_another() {
    let hub = hub().await;
    let mut edge = hub.v5("akron-1", "good").await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xFF; 64],
        &[0x10, 4, 0, 4, b'M', b'Q'],
        &[0x20, 2, 0, 0],
    ] {
        let mut socket = raw(&hub).await;
        socket.write_all(garbage).await.unwrap();
        socket.shutdown().await.unwrap();
        assert!(rest(&mut socket).await.is_empty(), "{garbage:?}");
    }
    // Inside a session, too: packets that only a server sends make rumqttd's codec panic.
    for (garbage, code) in [
        (&[0x20, 2, 0, 0][..], 0x82),
        (&[0xB0, 4, 0, 1, 0, 0], 0x82),
        (&[0x82, 3, 0, 1, 0], 0x81),
    ] {
        let mut socket = raw_v5(&hub, "bad").await;
        socket.write_all(garbage).await.unwrap();
        assert_eq!(rest(&mut socket).await, [0xE0, 2, code, 0], "{garbage:?}");
    }
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
}

#[tokio::test]
async fn a_socket_that_never_connects_is_closed_and_blocks_nobody() {
    let limits = Limits {
        connect_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let mut silent = raw(&hub).await;
    let mut halves = raw(&hub).await;
    halves.write_all(&[0x10]).await.unwrap();
    let mut edge = hub.v5("akron-1", "good").await;
    edge.publish(OWN, "frame").await;
    assert_eq!(edge.puback().await.reason, PubAckReason::Success);
    assert!(rest(&mut silent).await.is_empty());
    assert!(rest(&mut halves).await.is_empty());
}

#[tokio::test]
async fn a_client_that_goes_silent_is_closed_after_one_and_a_half_keep_alives() {
    let hub = hub().await;
    let started = tokio::time::Instant::now();
    let mut socket = raw_v5(&hub, "silent").await;
    assert_eq!(rest(&mut socket).await, [0xE0, 2, 0x8D, 0]);
    assert!(started.elapsed() >= Duration::from_millis(1400));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_hold_up_another() {
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let mut deaf = raw_v5(&hub, "deaf").await;
    let mut subscribe = vec![0x82, 0, 0, 1, 0, 0, ACK.len() as u8];
    subscribe.extend_from_slice(ACK.as_bytes());
    subscribe.push(0);
    subscribe[1] = (subscribe.len() - 2) as u8;
    deaf.write_all(&subscribe).await.unwrap();
    let mut edge = hub.v5("akron-1", "good").await;
    edge.subscribe(ACK).await;
    for number in 0..60u32 {
        let mut payload = vec![0; 200_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        hub.broker
            .downlink
            .publish(ACK, payload.into(), false)
            .await
            .unwrap();
        assert_eq!(edge.message().await[..4], number.to_be_bytes());
    }
    drop(deaf);
}

#[tokio::test]
async fn the_socket_is_not_read_while_too_much_is_pending() {
    let limits = Limits {
        pending_max: 4,
        ..Limits::default()
    };
    let mut hub = hub_with(limits).await;
    let mut edge = hub.v5("akron-1", "eager").await;
    for number in 0..12 {
        edge.publish(OWN, &format!("hold {number}")).await;
    }
    let settle = async {
        let mut released = 0;
        while released < 12 {
            hub.next().await;
            let held = hub.held.lock().unwrap().len();
            assert!(held <= 4, "{held} publishes pending at ingest");
            if held == 4 || released + held == 12 {
                for (_, settled) in hub.held.lock().unwrap().drain(..) {
                    settled.send(Settled::Stored).unwrap();
                    released += 1;
                }
            }
        }
    };
    let acks = async {
        for _ in 0..12 {
            edge.puback().await;
        }
    };
    tokio::join!(settle, acks);
}

#[tokio::test]
async fn sockets_above_the_connection_limit_are_closed_at_once() {
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let hub = hub_with(limits).await;
    let _first = hub.v5("akron-1", "a").await;
    let _second = hub.v5("akron-1", "b").await;
    let mut third = raw(&hub).await;
    assert!(rest(&mut third).await.is_empty());
}

#[tokio::test]
async fn a_shutdown_says_so_to_its_clients() {
    let hub = hub().await;
    let mut socket = raw_v5(&hub, "a").await;
    hub.broker.shutdown().await;
    assert_eq!(rest(&mut socket).await, [0xE0, 2, 0x8B, 0]);
}
