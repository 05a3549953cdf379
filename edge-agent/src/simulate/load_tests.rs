//! Does a load count, and misbehave, as it was told?

use tokio::net::TcpListener;
use tokio_modbus::{
    ExceptionCode, Slave,
    client::{Reader, tcp},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::simulate::modbus;

#[test]
fn the_tick_counter_shows_every_number_in_order_and_wraps() {
    let tick = Duration::from_millis(100);
    for n in 0..70_000u32 {
        let inside = tick * n + Duration::from_millis(u64::from(n % 100));
        assert_eq!(ticks(inside, tick), n as u16);
    }
}

#[test]
fn arguments_are_checked() {
    let load: Load = "devices=50,tags=100".parse().unwrap();
    assert_eq!((load.devices, load.tags, load.advance), (50, 100, Advance::Tick));
    assert_eq!(load.manners(), vec![Manner::Normal; 50]);
    let advance = "tags=1, devices=1, advance=read".parse::<Load>().unwrap().advance;
    assert_eq!(advance, Advance::Read);
    for bad in [
        "",
        "devices=0,tags=1",
        "devices=248,tags=1",
        "devices=1001,tags=1,ports=own",
        "devices=1",
        "devices=1,tags=x",
        "n=1",
        "devices=2,tags=1,period=1ms",
        "devices=2,tags=1,late=soon",
        "devices=2,tags=1,exception=128",
        "devices=2,tags=1,dead=2,refuse=1",
    ] {
        assert!(bad.parse::<Load>().is_err(), "{bad}");
    }
}

#[test]
fn the_last_devices_are_the_ones_that_misbehave() {
    let load: Load = "devices=6,tags=1,ports=own,dead=2,refuse=1,late=1.2s,exception=6:1"
        .parse()
        .unwrap();
    assert_eq!(
        load.manners(),
        [
            Manner::Normal,
            Manner::Refusal(Exception(6)),
            Manner::Late(Duration::from_millis(1_200)),
            Manner::Refuse,
            Manner::Silent,
            Manner::Silent,
        ]
    );
}

async fn serve(
    load: &str,
) -> (
    std::net::SocketAddr,
    Arc<LoadRegisters>,
    tokio_util::sync::DropGuard,
) {
    let bank = Arc::new(LoadRegisters::new(
        load.parse().unwrap(),
        Duration::from_millis(2),
    ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(modbus::serve(
        listener,
        Arc::new(Gateway(bank.clone())),
        stop.clone(),
    ));
    (address, bank, stop.drop_guard())
}

#[tokio::test]
async fn counters_that_advance_when_read_never_skip_over_tcp() {
    let (address, _bank, _stop) = serve("devices=3,tags=250,advance=read").await;
    for unit in 1..=3 {
        let mut client = tcp::connect_slave(address, Slave(unit)).await.unwrap();
        for expected in 0..200u16 {
            let words = client.read_holding_registers(125, 125).await.unwrap().unwrap();
            assert_eq!(words, vec![expected; 125]);
        }
    }
}

#[tokio::test]
async fn tick_counters_are_alike_in_a_block_and_never_run_backwards() {
    let (address, _bank, _stop) = serve("devices=2,tags=100").await;
    let mut client = tcp::connect_slave(address, Slave(2)).await.unwrap();
    let mut last = 0;
    while last < 20 {
        let words = client.read_holding_registers(0, 100).await.unwrap().unwrap();
        assert!(words.iter().all(|word| *word == words[0]) && words[0] >= last);
        last = words[0];
    }
}

#[tokio::test]
async fn units_and_registers_beyond_the_load_are_refused() {
    let (address, _bank, _stop) = serve("devices=2,tags=100").await;
    let mut client = tcp::connect_slave(address, Slave(2)).await.unwrap();
    let answer = client.read_holding_registers(50, 51).await.unwrap();
    assert_eq!(answer, Err(ExceptionCode::IllegalDataAddress));
    let mut client = tcp::connect_slave(address, Slave(3)).await.unwrap();
    let answer = client.read_holding_registers(0, 1).await.unwrap();
    assert_eq!(answer, Err(ExceptionCode::GatewayTargetDevice));
}

#[tokio::test]
async fn a_device_that_is_made_to_refuse_does_so_until_it_is_made_well() {
    let (address, bank, _stop) = serve("devices=2,tags=10").await;
    let mut client = tcp::connect_slave(address, Slave(1)).await.unwrap();
    assert!(bank.behave(1, Manner::Refusal(Exception(6))));
    let answer = client.read_holding_registers(0, 1).await.unwrap();
    assert_eq!(answer, Err(ExceptionCode::ServerDeviceBusy));
    assert!(bank.behave(1, Manner::Refuse));
    assert!(client.read_holding_registers(0, 1).await.is_err());
    assert!(bank.behave(1, Manner::Normal));
    let mut client = tcp::connect_slave(address, Slave(1)).await.unwrap();
    assert!(client.read_input_registers(0, 10).await.unwrap().is_ok());
    assert!(!bank.behave(3, Manner::Silent) && !bank.behave(0, Manner::Silent));
}
