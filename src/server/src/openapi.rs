//! The OpenAPI document, made from the route table.

pub mod shapes;

use lodge_api::Problem;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder, ResponsesBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem,
    Paths, Ref, RefOr, Required, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::route::{Access, Answers, Route, Takes};
use shapes::open_compositions;

const DESCRIPTION: &str = "Lodge hosts virtual machines. Objects are named by name or id. Anything that may \
    take longer than a second is an operation: 202 with `Location`, or, with `?wait=30s`, its end: 200, or the \
    operation's problem with its status and an `operation` link. Errors are `application/problem+json` with a stable `code`, a \
    `pointer` to the offending field (`?name` for a query parameter) and a `hint`. A 2xx is durable. Unknown \
    fields of requests are refused; responses may grow fields. `x-privilege` names what a method needs.";

/// The document that describes `table`.
pub fn document(table: &[Route]) -> OpenApi {
    let mut paths = Paths::new();
    let mut components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .security_scheme(
            "bearer",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        )
        .security_scheme(
            "cookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("__Host-lodge"))),
        );
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    for route in table {
        schemas.extend(route.schemas.iter().cloned());
        let item = PathItem::new(http_method(route), operation(route));
        match paths.paths.get_mut(route.path) {
            Some(existing) => existing.merge_operations(item),
            None => {
                paths.paths.insert(route.path.to_owned(), item);
            }
        }
    }
    for (name, schema) in schemas {
        components = components.schema(name, schema);
    }
    let info = InfoBuilder::new()
        .title("Lodge")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0 OR MIT")
                .identifier(Some("Apache-2.0 OR MIT"))
                .build(),
        ));
    let mut components = components.build();
    open_compositions(&mut components);
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths)
        .components(Some(components))
        .build()
}

fn http_method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(route: &Route) -> Operation {
    let privilege = ExtensionsBuilder::new()
        .add("x-privilege", route.access.as_str())
        .build();
    let mut operation = OperationBuilder::new()
        .operation_id(Some(route.id))
        .tag(tag(route))
        .summary(Some(route.summary))
        .description(route.description)
        .parameters(Some(parameters(route)))
        .request_body(route.takes.as_ref().map(request_body))
        .responses(responses(route))
        .extensions(Some(privilege));
    if route.access != Access::Public {
        let none: [&str; 0] = [];
        operation = operation
            .security(SecurityRequirement::new("bearer", none))
            .security(SecurityRequirement::new("cookie", none));
    }
    operation.build()
}

/// The noun of `noun_verb`.
fn tag(route: &Route) -> &'static str {
    route.id.split('_').next().unwrap_or(route.id)
}

fn string() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

fn entity_tag() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r#"^(\*|"[0-9]{1,19}")$"#))
        .into()
}

fn parameters(route: &Route) -> Vec<Parameter> {
    let in_path = route
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(match name {
                    "operation" => "Id of the operation".to_owned(),
                    name => format!("Name or id of the {name}"),
                }))
                .schema(Some(string()))
                .build()
        });
    let condition = route.conditional.then(|| {
        ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("Only if the object still has this `ETag`"))
            .schema(Some(entity_tag()))
            .build()
    });
    in_path
        .chain(route.query.iter().cloned())
        .chain(condition)
        .collect()
}

fn request_body(takes: &Takes) -> RequestBody {
    let required = if takes.required {
        Required::True
    } else {
        Required::False
    };
    takes
        .types
        .iter()
        .fold(
            RequestBodyBuilder::new().required(Some(required)),
            |body, kind| {
                body.content(
                    *kind,
                    ContentBuilder::new()
                        .schema(Some(takes.schema.clone()))
                        .build(),
                )
            },
        )
        .build()
}

fn responses(route: &Route) -> ResponsesBuilder {
    let mut responses = ResponsesBuilder::new();
    for answer in &route.answers {
        responses = responses.response(answer.status.to_string(), success(answer));
    }
    for (status, description) in failures(route) {
        responses = responses.response(status, problem(description));
    }
    responses
}

fn success(answer: &Answers) -> Response {
    let mut response = ResponseBuilder::new().description(answer.description);
    if let Some((kind, schema)) = &answer.content {
        let content = ContentBuilder::new().schema(Some(schema.clone())).build();
        response = response.content(*kind, content);
    }
    for (name, description) in &answer.headers {
        let header = HeaderBuilder::new()
            .schema(Some(string()))
            .description(Some(*description))
            .build();
        response = response.header(*name, header);
    }
    response.build()
}

/// What can go wrong, as far as the declaration tells; the rest is `default`.
fn failures(route: &Route) -> Vec<(&'static str, &'static str)> {
    let mut failures = Vec::new();
    if route.takes.is_some() || !route.query.is_empty() {
        failures.push(("400", "The request is not what the method expects."));
    }
    if route.access == Access::Public {
        if route.takes.is_some() {
            failures.push(("401", "Wrong user or password."));
            failures.push(("429", "Too many wrong passwords; see `Retry-After`."));
        }
    } else {
        failures.push(("401", "No or wrong credentials."));
        failures.push(("403", "The credentials lack the privilege."));
    }
    if route.path.contains('{') {
        failures.push(("404", "There is no such object."));
    }
    if route.method != http::Method::GET && route.access != Access::Public {
        failures.push(("409", "Not possible in the present state of things."));
    }
    if route.conditional {
        failures.push(("412", "The object has another revision."));
    }
    if route.takes.is_some() {
        failures.push(("413", "The body is too large."));
        failures.push(("415", "The body has another media type."));
    }
    failures.push(("default", "Another problem."));
    failures
}

fn problem(description: &str) -> Response {
    let schema: RefOr<Schema> = RefOr::Ref(Ref::from_schema_name(Problem::name()));
    ResponseBuilder::new()
        .description(description)
        .content(
            lodge_api::problem::CONTENT_TYPE,
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build()
}

#[cfg(test)]
mod tests;
