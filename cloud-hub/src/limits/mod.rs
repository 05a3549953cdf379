//! What may a request cost before it is looked at? Its size, its rate, its share of the tenant's turns and the time
//! its body takes; beyond that it is answered with a problem document and nothing is done.

mod body;
mod fairness;
mod rate;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

pub use self::body::{TooSlow, patient};
use self::{fairness::Turns, rate::Rate};
use crate::{
    app::App,
    config::Http,
    error::{Error, Result},
    identity::source::Source,
    kernel::{
        caller::{Caller, Principal},
        role::Role,
        tenancy::TenantSlug,
    },
};

/// A longer address is no list with filters.
const URI_BYTES_MAX: usize = 8 * 1024;
/// All names and values of a request's headers.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// How long a request waits for its tenant's turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When somebody who waited in vain should come back.
const RETRY_AFTER_S: u64 = 1;

/// Whom a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    User(TenantSlug, Uuid),
    Operator(TenantSlug, &'static str),
    ApiKey(TenantSlug, Uuid),
    Nobody(Source),
}

/// Whose turns a request takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Party {
    Tenant(TenantSlug),
    Source(Source),
}

/// The limits of this hub.
#[derive(Debug)]
pub struct Limits {
    rate: Rate,
    turns: Turns<Party>,
}

impl Limits {
    /// Those of the configuration.
    pub fn new(config: &Http) -> Self {
        Self {
            rate: Rate::new(config.requests_per_s, config.burst),
            turns: Turns::new(config.tenant_requests_at_once, WAIT_MAX),
        }
    }

    fn count(&self, by: &Counted) -> Result<()> {
        self.rate
            .admit(by)
            .map_err(|retry_after_s| Error::TooManyAttempts { retry_after_s })
    }
}

/// Admits a request, or answers it. A token was verified before, an API key only by the database: whoever shows one
/// is counted by their address too, and takes turns with it, or made-up keys would be limited by nothing.
pub async fn admit(
    State((app, limits)): State<(App, Arc<Limits>)>,
    request: Request,
    next: Next,
) -> Result<Response> {
    check_size(&request)?;
    let (mut parts, body) = request.into_parts();
    let Ok(source) = Source::from_request_parts(&mut parts, &app).await;
    let request = Request::from_parts(parts, body);
    let party = match request.extensions().get::<Caller>() {
        None => {
            limits.count(&Counted::Nobody(source))?;
            Party::Source(source)
        }
        Some(caller) => {
            limits.count(&counted(caller))?;
            if matches!(caller.principal, Principal::ApiKey(_)) {
                limits.count(&Counted::Nobody(source))?;
                Party::Source(source)
            } else {
                Party::Tenant(caller.tenant.clone())
            }
        }
    };
    let too_many = Error::TooManyAttempts {
        retry_after_s: RETRY_AFTER_S,
    };
    let _turn = limits.turns.take(party).await.ok_or(too_many)?;
    Ok(next.run(request).await)
}

fn counted(caller: &Caller) -> Counted {
    let tenant = caller.tenant.clone();
    match &caller.principal {
        Principal::User { id, .. } => Counted::User(tenant, *id),
        Principal::ApiKey(key) => Counted::ApiKey(tenant, key.id()),
        Principal::Operator(role) => Counted::Operator(tenant, Role::as_str(*role)),
    }
}

fn check_size(request: &Request) -> Result<()> {
    let refuse = |status, detail: String| Err(Error::Unreadable { status, detail });
    let target = request.uri().path_and_query().map_or(0, |it| it.as_str().len());
    if target > URI_BYTES_MAX {
        return refuse(
            StatusCode::URI_TOO_LONG,
            format!("an address may have {URI_BYTES_MAX} bytes"),
        );
    }
    let headers = request.headers().iter();
    if headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>()
        > HEADER_BYTES_MAX
    {
        return refuse(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("the headers of a request may have {HEADER_BYTES_MAX} bytes"),
        );
    }
    Ok(())
}
