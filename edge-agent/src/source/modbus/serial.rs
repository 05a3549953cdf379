//! How is a serial line opened? Only in builds with the feature `rtu`.

use std::io;

use tokio_modbus::{
    client::{Context, rtu},
    slave::Slave,
};
use tokio_serial::{ClearBuffer, DataBits, SerialPort as _, SerialPortBuilderExt as _, StopBits};

use super::endpoint::{Parity, Serial};

/// Opens the port and forgets what came in before.
pub(super) fn open(serial: &Serial) -> io::Result<Context> {
    let parity = match serial.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    };
    let stop_bits = if serial.stop_bits == 2 {
        StopBits::Two
    } else {
        StopBits::One
    };
    let port = tokio_serial::new(&serial.path, serial.baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(stop_bits)
        .open_native_async()?;
    port.clear(ClearBuffer::Input)?;
    Ok(rtu::attach_slave(port, Slave(1)))
}
