//! How does the simulated PLC answer Modbus TCP?
//! Holding registers, read only. Unmapped addresses get exception 02, foreign unit ids exception 0B: exactly what
//! a source must survive.

use std::{future, io, sync::Arc};

use tokio::net::{TcpListener, TcpStream};
use tokio_modbus::{
    ExceptionCode, Request, Response, SlaveRequest,
    server::{Service, tcp::Server},
};
use tokio_util::sync::CancellationToken;

use super::{state::PlantState, tags::UNIT_ID};

/// Most registers one request may ask for (Modbus application protocol, 6.3).
const REGISTERS_MAX: u16 = 125;

/// Something that owns holding registers.
pub trait RegisterBank: Send + Sync + 'static {
    /// The registers `address..address + quantity` of `unit`.
    ///
    /// # Errors
    /// The exception a PLC would answer.
    fn read(&self, unit: u8, address: u16, quantity: u16) -> Result<Vec<u16>, ExceptionCode>;
}

/// The Akron map: unit 1, computed from the plant at the moment of the request.
#[derive(Debug, Clone)]
pub struct PlantRegisters(pub PlantState);

impl RegisterBank for PlantRegisters {
    fn read(&self, unit: u8, address: u16, quantity: u16) -> Result<Vec<u16>, ExceptionCode> {
        if unit != UNIT_ID {
            return Err(ExceptionCode::GatewayTargetDevice);
        }
        let moment = self.0.now();
        (0..quantity)
            .map(|offset| {
                address
                    .checked_add(offset)
                    .and_then(|address| moment.register(address))
            })
            .collect::<Option<Vec<u16>>>()
            .ok_or(ExceptionCode::IllegalDataAddress)
    }
}

#[derive(Clone)]
struct RegisterService {
    bank: Arc<dyn RegisterBank>,
}

impl Service for RegisterService {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = future::Ready<Result<Response, ExceptionCode>>;

    fn call(&self, SlaveRequest { slave, request }: Self::Request) -> Self::Future {
        future::ready(match request {
            Request::ReadHoldingRegisters(_, quantity) if quantity == 0 || quantity > REGISTERS_MAX => {
                Err(ExceptionCode::IllegalDataValue)
            }
            Request::ReadHoldingRegisters(address, quantity) => self
                .bank
                .read(slave, address, quantity)
                .map(Response::ReadHoldingRegisters),
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

/// Serves `bank` on `listener` until `stop`.
///
/// # Errors
/// When the listener itself fails; a client's broken connection only ends that client.
pub async fn serve(
    listener: TcpListener,
    bank: Arc<dyn RegisterBank>,
    stop: CancellationToken,
) -> io::Result<()> {
    let service = RegisterService { bank };
    let on_connected = |stream: TcpStream, _peer| {
        let service = service.clone();
        async move {
            // Small replies to small requests: waiting to fill a segment would add 40 ms to each poll.
            stream.set_nodelay(true)?;
            Ok(Some((service, stream)))
        }
    };
    let on_error = |error: io::Error| tracing::debug!(%error, "modbus client gone");
    Server::new(listener)
        .serve_until(&on_connected, on_error, stop.cancelled_owned())
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio_modbus::{
        Slave,
        client::{Context, Reader, Writer, tcp},
    };

    use super::*;
    use crate::simulate::scenario::{Command, Fault};

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
        tokio::spawn(serve(
            listener,
            Arc::new(PlantRegisters(plant.clone())),
            stop.clone(),
        ));
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
        assert!(
            (-500..100).contains(&l2[5].cast_signed()),
            "TT-206 {}",
            l2[5].cast_signed()
        );
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
        plc.plant.scenario().apply(Command::Normal, now_us);
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
    async fn foreign_units_functions_and_quantities_are_refused() {
        let plc = plc().await;
        let mut foreign = client(&plc, 9).await;
        let answer = foreign.read_holding_registers(0, 1).await.unwrap();
        assert_eq!(answer, Err(ExceptionCode::GatewayTargetDevice));
        let mut client = client(&plc, 1).await;
        let written = client.write_single_register(0, 1).await.unwrap();
        assert_eq!(written, Err(ExceptionCode::IllegalFunction));
        let empty = client.read_holding_registers(0, 0).await.unwrap();
        assert_eq!(empty, Err(ExceptionCode::IllegalDataValue));
    }

    #[tokio::test]
    async fn a_client_that_sends_garbage_disturbs_no_other() {
        use tokio::io::AsyncWriteExt;
        let plc = plc().await;
        let mut vandal = TcpStream::connect(plc.address).await.unwrap();
        vandal.write_all(&[0xff; 64]).await.unwrap();
        let mut client = client(&plc, 1).await;
        assert!(client.read_holding_registers(0, 1).await.unwrap().is_ok());
    }
}
