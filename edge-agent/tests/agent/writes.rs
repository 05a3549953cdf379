//! Is a value written only where that is allowed, once, and does it count only when the device holds it?

use std::time::Duration;

use edge_agent::{
    config,
    source::{
        error::SourceError,
        modbus::{
            Lines,
            write::{Write, WriteError, write, write_to},
        },
    },
};

use crate::support::{
    edge::{device, head},
    plc::{Behaviour, Plc},
};

const LIMIT: Duration = Duration::from_secs(5);

async fn plc() -> (Plc, String) {
    let plc = Plc::start(Behaviour::default()).await;
    let address = plc.address.to_string();
    (plc, address)
}

#[tokio::test]
async fn coils_and_registers_are_written_and_read_back() {
    let (plc, address) = plc().await;
    for what in [
        Write::Coil {
            address: 3,
            value: true,
        },
        Write::Register {
            address: 65_535,
            value: 7,
        },
        Write::Registers {
            address: 10,
            values: vec![1, 2, 3],
        },
    ] {
        write(&address, 255, LIMIT, &what).await.unwrap();
    }
    let found = [3, 65_535, 10, 11, 12].map(|address| plc.value(address).unwrap());
    assert_eq!(found, [1, 7, 1, 2, 3]);
    let functions: Vec<u8> = plc.asked().iter().map(|asked| asked.function).collect();
    assert_eq!(functions, [5, 1, 6, 3, 16, 3]);
    assert!(plc.asked().iter().all(|asked| asked.unit == 255));
    write(
        &address,
        255,
        LIMIT,
        &Write::Coil {
            address: 3,
            value: false,
        },
    )
    .await
    .unwrap();
    assert_eq!(plc.value(3), Some(0));
}

#[tokio::test]
async fn a_value_that_the_device_does_not_take_over_is_an_error() {
    let (plc, address) = plc().await;
    plc.behave(|behaviour| behaviour.ignores_writes = true);
    let what = Write::Register { address: 4, value: 9 };
    let error = write(&address, 1, LIMIT, &what).await.unwrap_err();
    let SourceError::Write(WriteError::NotTaken { found, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(found, [1004]);
}

#[tokio::test]
async fn a_write_without_an_answer_is_not_repeated() {
    let (plc, address) = plc().await;
    plc.behave(|behaviour| behaviour.is_silent = true);
    let what = Write::Coil {
        address: 0,
        value: true,
    };
    let error = write(&address, 1, Duration::from_millis(50), &what)
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Timeout { .. }), "{error:?}");
    assert_eq!(plc.asked().len(), 1);
}

#[tokio::test]
async fn a_refused_write_says_why() {
    let (plc, address) = plc().await;
    plc.behave(|behaviour| behaviour.exception = Some(4));
    let what = Write::Register { address: 0, value: 1 };
    let error = write(&address, 1, LIMIT, &what).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused(_)), "{error:?}");
    plc.behave(|behaviour| behaviour.exception = None);
    for values in [vec![], vec![0; 124]] {
        let what = Write::Registers { address: 0, values };
        let error = write(&address, 1, LIMIT, &what).await.unwrap_err();
        assert!(
            matches!(error, SourceError::Write(WriteError::Range { .. })),
            "{error:?}"
        );
    }
    let what = Write::Registers {
        address: 65_535,
        values: vec![1, 2],
    };
    let error = write(&address, 1, LIMIT, &what).await.unwrap_err();
    assert!(error.to_string().contains("end at 65535"), "{error}");
}

#[tokio::test]
async fn a_device_is_read_only_unless_its_configuration_says_otherwise() {
    let (plc, _) = plc().await;
    let text = head(None) + &device("plc", plc.address, "1s", "5s", &[0]);
    let lines = Lines::default();
    let what = Write::Register { address: 0, value: 1 };
    let read_only = config::parse(&text).unwrap().modbus.remove(0);
    let error = write_to(&read_only, &lines, &what).await.unwrap_err();
    assert!(
        error.to_string().contains("set `writes_enabled = true`"),
        "{error}"
    );
    assert!(plc.asked().is_empty(), "nothing is sent");
    let text = text.replace("timeout =", "writes_enabled = true\ntimeout =");
    let writable = config::parse(&text).unwrap().modbus.remove(0);
    write_to(&writable, &lines, &what).await.unwrap();
    assert_eq!(plc.value(0), Some(1));
}
