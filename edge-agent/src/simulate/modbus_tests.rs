//! Does the simulated PLC answer a real client as a PLC would?

use std::net::SocketAddr;

use tokio_modbus::{
    ExceptionCode, Slave,
    client::{Context, Reader, Writer, tcp},
};

use super::*;
use crate::simulate::{fault::Fault, scenario::Command};

struct Plc {
    plant: PlantState,
    address: SocketAddr,
    _stop: tokio_util::sync::DropGuard,
}

async fn plc() -> Plc {
    let plant = PlantState::start(1, 1.0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let bank = Arc::new(PlantRegisters(plant.clone()));
    tokio::spawn(serve(listener, bank, stop.clone()));
    Plc {
        plant,
        address,
        _stop: stop.drop_guard(),
    }
}

async fn client(plc: &Plc, unit: u8) -> Context {
    tcp::connect_slave(plc.address, Slave(unit)).await.unwrap()
}

#[tokio::test]
async fn a_modbus_client_reads_the_whole_map() {
    let plc = plc().await;
    let mut client = client(&plc, 1).await;
    let l1 = client.read_holding_registers(0, 8).await.unwrap().unwrap();
    assert!((7_200..7_450).contains(&l1[0]), "TT-101 {}", l1[0]);
    assert!((8_700..9_200).contains(&l1[2]), "FT-103 {}", l1[2]);
    assert!((1_600..1_900).contains(&l1[4]), "PT-105 in tenths {}", l1[4]);
    assert_eq!(l1[5], 1);
    let l2 = client.read_holding_registers(20, 7).await.unwrap().unwrap();
    let air = l2[5].cast_signed();
    assert!((-500..100).contains(&air), "TT-206 {air}");
    let stores = client.read_input_registers(0, 4).await.unwrap().unwrap();
    assert!(stores.iter().all(|raw| (50..440).contains(raw)), "{stores:?}");
    assert_eq!(client.read_discrete_inputs(0, 4).await.unwrap().unwrap().len(), 4);
}

#[tokio::test]
async fn the_registers_follow_the_scenario() {
    let plc = plc().await;
    let mut client = client(&plc, 1).await;
    let now_us = plc.plant.clock.plant_us();
    let start = Command::Start {
        fault: Fault::F1,
        seconds: None,
    };
    plc.plant.scenario().apply(start, now_us - 2_000_000);
    let l1 = client.read_holding_registers(0, 6).await.unwrap().unwrap();
    assert!(l1[0] < 7_200 && l1[5] == 0);
    plc.plant.scenario().apply(Command::Normal, now_us - 1_000_000);
    assert_eq!(client.read_holding_registers(5, 1).await.unwrap().unwrap(), [1]);
}

#[tokio::test]
async fn an_illegal_address_is_exception_02_and_the_connection_goes_on() {
    let plc = plc().await;
    let mut client = client(&plc, 1).await;
    for (address, quantity) in [(8, 1), (0, 9), (7, 14), (65_535, 2)] {
        let answer = client.read_holding_registers(address, quantity).await.unwrap();
        assert_eq!(
            answer,
            Err(ExceptionCode::IllegalDataAddress),
            "{address}+{quantity}"
        );
    }
    assert!(client.read_holding_registers(0, 1).await.unwrap().is_ok());
}

#[tokio::test]
async fn foreign_units_places_and_quantities_are_refused() {
    let plc = plc().await;
    let mut foreign = client(&plc, 9).await;
    let answer = foreign.read_holding_registers(0, 1).await.unwrap();
    assert_eq!(answer, Err(ExceptionCode::GatewayTargetDevice));
    let mut client = client(&plc, 1).await;
    let written = client.write_single_register(0, 1).await.unwrap();
    assert_eq!(written, Err(ExceptionCode::IllegalDataAddress));
    let empty = client.read_holding_registers(0, 0).await.unwrap();
    assert_eq!(empty, Err(ExceptionCode::IllegalDataValue));
    let unknown = client.read_write_multiple_registers(0, 1, 0, &[1]).await.unwrap();
    assert_eq!(unknown, Err(ExceptionCode::IllegalFunction));
    assert_eq!(plc.plant.writes.list(), []);
}

#[tokio::test]
async fn outputs_are_written_read_back_and_recorded_with_their_time() {
    let plc = plc().await;
    let mut client = client(&plc, 1).await;
    client.write_single_coil(3, true).await.unwrap().unwrap();
    client
        .write_multiple_registers(1_000, &[7, 8])
        .await
        .unwrap()
        .unwrap();
    client
        .write_multiple_coils(8, &[true, false, true])
        .await
        .unwrap()
        .unwrap();
    client.write_single_register(1_001, 9).await.unwrap().unwrap();
    let read = client.read_holding_registers(1_000, 2).await.unwrap().unwrap();
    let coils = client.read_coils(8, 3).await.unwrap().unwrap();
    assert_eq!((read, coils), (vec![7, 9], vec![true, false, true]));
    let writes = plc.plant.writes.list();
    let places: Vec<_> = writes.iter().map(|write| (write.table, write.address)).collect();
    assert_eq!(
        places,
        [("coil", 3), ("holding", 1_000), ("coil", 8), ("holding", 1_001)]
    );
    assert!(writes.is_sorted_by_key(|write| write.at_us));
}

#[tokio::test]
async fn a_client_that_sends_garbage_disturbs_no_other() {
    let plc = plc().await;
    let mut vandal = TcpStream::connect(plc.address).await.unwrap();
    vandal.write_all(&[0xff; 64]).await.unwrap();
    let mut client = client(&plc, 1).await;
    assert!(client.read_holding_registers(0, 1).await.unwrap().is_ok());
}

#[test]
fn no_request_makes_the_device_panic() {
    let bank = PlantRegisters(PlantState::start(1, 1.0));
    proptest::proptest!(|(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300))| {
        let mut framed = vec![0, 1, 0, 0];
        let length = (bytes.len().clamp(2, LENGTH_MAX)) as u16;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&bytes);
        for input in [&bytes, &framed] {
            if let Ok(Some(length)) = whole_request(input) {
                let mut output = Vec::new();
                reply(&input[..length], &bank, None, &mut output);
                proptest::prop_assert_eq!(usize::from(word(&output, 4)) + 6, output.len());
            }
        }
    });
}
