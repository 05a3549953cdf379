//! What went wrong with a source, and what should its loop do about it?

use std::{io, time::Duration};

use protocol::Quality;
use tokio_modbus::ExceptionCode;

use super::modbus::write::WriteError;

/// What a source's loop does after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Drop the connection and try again after a pause.
    Retry,
    /// The connection is sound; only what was asked for is bad.
    Skip,
}

/// Why a source could not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Address or URL.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No reply in time.
    #[error("no reply from {address} within {limit:?}")]
    Timeout {
        /// Address or URL.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// The transport broke, or the reply did not belong to the request.
    #[error("the exchange with {address} failed")]
    Transport {
        /// Address or URL.
        address: String,
        /// Why.
        source: tokio_modbus::Error,
    },
    /// The device refused: a Modbus exception.
    #[error("the device refused: {0}")]
    Refused(ExceptionCode),
    /// The reply was shorter or longer than asked for.
    #[error("asked for {need} values, got {have}")]
    Length {
        /// Values asked for.
        need: usize,
        /// Values that came.
        have: usize,
    },
    /// A value was not written, or not taken over.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An OPC UA service failed.
    #[error("{service} failed: {status}")]
    Opcua {
        /// The service.
        service: &'static str,
        /// The status code's text.
        status: String,
    },
}

impl SourceError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::Write(_) => Class::Skip,
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Length { .. }
            | Self::Opcua { .. } => Class::Retry,
        }
    }

    /// The quality of readings that could not be taken because of it.
    pub fn quality(&self) -> Quality {
        match self {
            Self::Connect { .. } => Quality::BAD_NOT_CONNECTED,
            Self::Timeout { .. } => Quality::BAD_TIMEOUT,
            Self::Transport { .. } | Self::Length { .. } | Self::Opcua { .. } => Quality::BAD_COMMUNICATION,
            Self::Write(_) => Quality::BAD_CONFIGURATION,
            Self::Refused(code) => match code {
                ExceptionCode::IllegalDataAddress => Quality::BAD_ADDRESS,
                ExceptionCode::IllegalFunction | ExceptionCode::IllegalDataValue => {
                    Quality::BAD_CONFIGURATION
                }
                ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
                    Quality::BAD_NOT_CONNECTED
                }
                _ => Quality::BAD_DEVICE_FAILURE,
            },
        }
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
