//! What does the API say of itself? Handlers describe their success; tokens and problem documents are the same
//! everywhere and are added here once.

use utoipa::{
    PartialSchema,
    openapi::{
        Components, ContentBuilder, HttpMethod, InfoBuilder, OpenApi as Document, OpenApiBuilder, Ref,
        ResponseBuilder,
        path::{Operation, PathItem},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{error::Problem, kernel::permission::Permission};

/// Where the document is served.
pub const PATH: &str = "/api/v1/openapi.json";

/// Operations that need no token.
const PUBLIC: &[&str] = &[
    "login",
    "refresh_session",
    "logout",
    "register_user",
    "verify_email",
    "resend_verification",
    "initiate_password_reset",
    "forgot_password",
    "confirm_password_reset",
    "reset_password",
    "enroll_edge",
    "list_sign_in_providers",
    "start_oidc",
    "finish_oidc",
    "exchange_oidc_code",
    "end_oidc_session",
];

const SCHEME: &str = "bearer";

/// What an edge presents: its MQTT user name and password, as HTTP Basic.
const DEVICE_SCHEME: &str = "device";

/// What an operator of the platform presents: `foodflow-hub token --platform`.
const PLATFORM_SCHEME: &str = "platform";

/// An operation's need of a permission, as `security`: the one place where a route says who may use it. A test
/// tries every operation with and without what it says.
pub fn needs(permission: Permission) -> SecurityRequirement {
    SecurityRequirement::new(SCHEME, [permission.as_str()])
}

/// The document before any route is added to it.
pub fn base() -> Document {
    let info = InfoBuilder::new()
        .title("FoodFlow OS hub")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Times are integer UTC microseconds in fields ending `_us`. Quality is the high half of the OPC UA \
             status code. Lists are cut into pages: pass `next` as `cursor`.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Adds what every operation shares.
pub fn complete(mut document: Document) -> Document {
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".to_owned(), Problem::schema());
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme(SCHEME, scheme.clone());
    components.add_security_scheme(PLATFORM_SCHEME, scheme);
    let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
    components.add_security_scheme(DEVICE_SCHEME, basic);
    for item in document.paths.paths.values_mut() {
        for (method, operation) in operations(item) {
            share(&method, operation);
        }
    }
    document
}

/// The operations of one path with their methods.
pub fn operations(item: &mut PathItem) -> Vec<(HttpMethod, &mut Operation)> {
    [
        (HttpMethod::Get, item.get.as_mut()),
        (HttpMethod::Post, item.post.as_mut()),
        (HttpMethod::Put, item.put.as_mut()),
        (HttpMethod::Patch, item.patch.as_mut()),
        (HttpMethod::Delete, item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
    .collect()
}

fn share(method: &HttpMethod, operation: &mut Operation) {
    let is_public = operation
        .operation_id
        .as_deref()
        .is_some_and(|id| PUBLIC.contains(&id));
    let mut statuses = vec![
        ("400", "The request says something impossible"),
        ("401", "No good token"),
    ];
    if !is_public {
        operation
            .security
            .get_or_insert_with(|| vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
        statuses.extend([
            ("403", "The role lacks the permission"),
            ("404", "No such thing in this tenant"),
        ]);
    }
    if *method != HttpMethod::Get {
        statuses.extend([
            ("409", "Does not fit the present state"),
            ("413", "The body is too large"),
            ("415", "The body is no JSON"),
            (
                "422",
                "The body has the wrong form, or the idempotency key was used for another request",
            ),
        ]);
    }
    if matches!(method, HttpMethod::Put | HttpMethod::Patch | HttpMethod::Delete) {
        statuses.extend([
            ("412", "The record was changed by someone else"),
            ("428", "`If-Match` is missing"),
        ]);
    }
    statuses.extend([
        ("408", "The body arrived too slowly"),
        ("414", "The address is too long"),
        ("429", "Too many requests; `Retry-After` says when to come back"),
        ("431", "The headers are too large"),
        ("503", "A service the hub needs is away"),
    ]);
    for (status, description) in statuses {
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let problem = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content);
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| problem.build().into());
    }
}
