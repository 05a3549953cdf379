//! What does the API say of a record? Its operations, named after the record, so that sixty records cannot collide.

use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        Content, ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder,
        path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths},
        request_body::{RequestBody, RequestBodyBuilder},
        schema::{ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::{Resource, routes::Routes};
use crate::{
    app::App,
    kernel::{
        export::{self, FormatParam},
        page::PageParams,
        permission::Permission,
    },
    openapi::needs,
    request::Page,
};

pub(super) fn document<R: Resource>(
    collection: Routes,
    bulk: Routes,
    export: Routes,
    item: Routes,
) -> OpenApiRouter<App> {
    let path = format!("/{}/{}", R::CONTEXT, R::PLURAL);
    let noun = R::PLURAL.replace('-', "_");
    let on_row =
        |verb: &str, permission| operation::<R>(&format!("{verb}_{}", R::NAME), permission).parameter(id());

    let mut on_collection = PathItem::new(HttpMethod::Get, listing::<R>(&noun));
    on_collection.merge_operations(PathItem::new(HttpMethod::Post, creation::<R>()));
    let mut on_item = PathItem::new(
        HttpMethod::Get,
        on_row("read", R::READ).response("200", success("The record", record::<R>())),
    );
    on_item.merge_operations(PathItem::new(
        HttpMethod::Patch,
        on_row("update", R::WRITE)
            .parameter(if_match())
            .request_body(Some(body(record::<R::Patch>())))
            .response("200", success("Changed", record::<R>())),
    ));
    on_item.merge_operations(PathItem::new(
        HttpMethod::Delete,
        on_row("delete", R::WRITE)
            .parameter(if_match())
            .response("204", ResponseBuilder::new().description("Deleted")),
    ));
    let on_export = PathItem::new(HttpMethod::Get, exporting::<R>(&noun));
    let on_bulk = PathItem::new(HttpMethod::Post, bulk_creation::<R>(&noun));

    OpenApiRouter::new()
        .routes(at::<R>(&path, on_collection, collection, true))
        .routes(at::<R>(&format!("{path}/bulk"), on_bulk, bulk, false))
        .routes(at::<R>(&format!("{path}/export"), on_export, export, false))
        .routes(at::<R>(&format!("{path}/{{id}}"), on_item, item, false))
}

fn at<R: Resource>(
    path: &str,
    item: PathItem,
    routes: Routes,
    with_schemas: bool,
) -> UtoipaMethodRouter<App> {
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    if with_schemas {
        register::<R>(&mut schemas);
        register::<R::New>(&mut schemas);
        register::<R::Patch>(&mut schemas);
    }
    let mut paths = Paths::new();
    paths.paths.insert(path.to_owned(), item);
    (schemas, paths, routes)
}

fn operation<R: Resource>(id: &str, permission: Permission) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .tag(R::CONTEXT)
        .securities(Some([needs(permission)]))
}

fn listing<R: Resource>(noun: &str) -> OperationBuilder {
    let filter = R::Filter::into_params(|| Some(ParameterIn::Query));
    let page = PageParams::into_params(|| Some(ParameterIn::Query));
    operation::<R>(&format!("list_{noun}"), R::READ)
        .parameters(Some(filter.into_iter().chain(page)))
        .response(
            "200",
            success(
                "One page",
                ContentBuilder::new().schema(Some(Page::<R>::schema())).build(),
            ),
        )
}

fn exporting<R: Resource>(noun: &str) -> OperationBuilder {
    let filter = R::Filter::into_params(|| Some(ParameterIn::Query));
    let format = FormatParam::into_params(|| Some(ParameterIn::Query));
    let page = PageParams::into_params(|| Some(ParameterIn::Query));
    let sort = page.into_iter().filter(|it| it.name == "sort");
    operation::<R>(&format!("export_{noun}"), R::READ)
        .description(Some("All of the list as one file; audited."))
        .parameters(Some(filter.into_iter().chain(format).chain(sort)))
        .response("200", export::success())
}

fn creation<R: Resource>() -> OperationBuilder {
    operation::<R>(&format!("create_{}", R::NAME), R::WRITE)
        .parameter(idempotency_key())
        .request_body(Some(body(record::<R::New>())))
        .response("201", success("Created", record::<R>()))
}

fn bulk_creation<R: Resource>(noun: &str) -> OperationBuilder {
    operation::<R>(&format!("create_{noun}"), R::WRITE)
        .description(Some("All or none; at most 1000."))
        .parameter(idempotency_key())
        .request_body(Some(body(items::<R::New>(Some(super::routes::BULK_MAX)))))
        .response("201", success("Created", items::<R>(None)))
}

fn items<T: ToSchema>(most: Option<usize>) -> Content {
    let mut list = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
    if let Some(most) = most {
        list = list.min_items(Some(1)).max_items(Some(most));
    }
    let object = ObjectBuilder::new().property("items", list).required("items");
    ContentBuilder::new().schema(Some(object)).build()
}

fn success(description: &str, content: Content) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
}

fn body(content: Content) -> RequestBody {
    RequestBodyBuilder::new()
        .content("application/json", content)
        .required(Some(Required::True))
        .build()
}

fn record<T: ToSchema>() -> Content {
    ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(T::name())))
        .build()
}

fn id() -> ParameterBuilder {
    let uuid: Object = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .build();
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(uuid))
}

fn if_match() -> ParameterBuilder {
    header(
        "if-match",
        "The record's version, quoted, as its `ETag` gave it",
        Required::True,
    )
}

fn idempotency_key() -> ParameterBuilder {
    header(
        "idempotency-key",
        "The same request with the same key is done once",
        Required::False,
    )
}

fn header(name: &str, description: &str, required: Required) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(required)
        .description(Some(description))
        .schema(Some(Object::with_type(Type::String)))
}

fn register<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}
