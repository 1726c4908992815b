//! The route table: every method of the API is declared once, with its path, its privilege, its
//! handler and its documentation. The router and the OpenAPI document are both made from it.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use futures_util::future::BoxFuture;
use http::Method;
use lodge_api::operation::{Operation, WaitParams};
use lodge_api::page::Page;
use lodge_api::privilege::Privilege;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::app::App;
use crate::auth::{self, Guard};
use crate::openapi::shapes::merge_patch;
use crate::wire::json::BodyLimit;
use crate::wire::path::split_verb;

/// JSON bodies are small; methods that need more say so.
const BODY_LIMIT: usize = 64 << 10;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without logging in.
    Public,
    /// Whoever has the privilege.
    Needs(Privilege),
}

impl Access {
    /// The word in the OpenAPI document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "none",
            Self::Needs(privilege) => privilege.as_str(),
        }
    }
}

/// Named schemas a method refers to.
pub type Schemas = Vec<(String, RefOr<Schema>)>;

/// One successful answer of a method.
pub struct Answers {
    /// HTTP status.
    pub status: u16,
    /// What it says.
    pub description: &'static str,
    /// Media type and schema of its body; `None` for none.
    pub content: Option<(&'static str, RefOr<Schema>)>,
    /// Headers worth knowing.
    pub headers: Vec<(&'static str, &'static str)>,
}

/// A body a method takes.
pub struct Takes {
    /// Media types.
    pub types: &'static [&'static str],
    /// What it holds.
    pub schema: RefOr<Schema>,
    /// Whether it has to be there.
    pub required: bool,
}

/// One method of the API.
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path as people know it: `/v1/vms/{vm}:start`.
    pub path: &'static str,
    /// `operationId`: noun and verb.
    pub id: &'static str,
    /// Who may call it.
    pub access: Access,
    /// One line.
    pub summary: &'static str,
    /// More, where one line is not enough.
    pub description: Option<&'static str>,
    /// Query parameters.
    pub query: Vec<Parameter>,
    /// Whether it heeds `If-Match`.
    pub conditional: bool,
    /// Its body.
    pub takes: Option<Takes>,
    /// Its successful answers.
    pub answers: Vec<Answers>,
    /// Schemas all these refer to.
    pub schemas: Schemas,
    body_limit: usize,
    handler: MethodRouter<App>,
}

/// A method's handler as the router has it. All are of this type: the router's own code is compiled once, not for each of them.
#[derive(Clone)]
struct Erased(Arc<dyn Fn(Request, App) -> BoxFuture<'static, Response> + Send + Sync>);

impl Erased {
    fn new<H, T>(handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Self(Arc::new(move |request, app| {
            Box::pin(handler.clone().call(request, app))
        }))
    }
}

impl Handler<(), App> for Erased {
    type Future = BoxFuture<'static, Response>;

    fn call(self, request: Request, app: App) -> Self::Future {
        (self.0)(request, app)
    }
}

impl Route {
    fn new<H, T>(
        method: (Method, MethodFilter),
        path: &'static str,
        access: Access,
        id: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        Self {
            method: method.0,
            path,
            id,
            access,
            summary: "",
            description: None,
            query: Vec::new(),
            conditional: false,
            takes: None,
            answers: Vec::new(),
            schemas: Vec::new(),
            body_limit: BODY_LIMIT,
            handler: on(method.1, Erased::new(handler)),
        }
    }

    /// What it does, in one line.
    pub fn summary(mut self, text: &'static str) -> Self {
        self.summary = text;
        self
    }

    /// What else there is to know.
    pub fn description(mut self, text: &'static str) -> Self {
        self.description = Some(text);
        self
    }

    /// It takes these query parameters.
    pub fn query<T: IntoParams + ToSchema>(mut self) -> Self {
        self.query.extend(T::into_params(|| None));
        // Parameters may refer to types of their own.
        T::schemas(&mut self.schemas);
        self
    }

    /// It heeds `If-Match`.
    pub fn if_match(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// It takes more than a few KiB.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// It takes a JSON body.
    pub fn takes<T: ToSchema>(mut self) -> Self {
        let schema = self.schema_of::<T>();
        self.takes = Some(Takes {
            types: &["application/json"],
            schema,
            required: true,
        });
        self
    }

    /// It takes a JSON body that may be absent.
    pub fn may_take<T: ToSchema>(self) -> Self {
        let mut route = self.takes::<T>();
        if let Some(takes) = &mut route.takes {
            takes.required = false;
        }
        route
    }

    /// It takes a JSON merge patch of `T`, which the document calls `name`.
    pub fn takes_patch<T: ToSchema>(mut self, name: &'static str) -> Self {
        self.schema_of::<T>();
        self.schemas
            .push((name.to_owned(), merge_patch(T::schema())));
        let types = &["application/merge-patch+json", "application/json"];
        self.takes_other(types, RefOr::Ref(Ref::from_schema_name(name)))
    }

    /// It takes a body of another kind.
    pub fn takes_other(mut self, types: &'static [&'static str], schema: RefOr<Schema>) -> Self {
        self.takes = Some(Takes {
            types,
            schema,
            required: true,
        });
        self
    }

    /// It answers with JSON.
    pub fn answers<T: ToSchema>(mut self, status: u16, description: &'static str) -> Self {
        let schema = self.schema_of::<T>();
        self.answers_other(status, description, Some(("application/json", schema)))
    }

    /// It answers with a page of `T`.
    pub fn answers_page<T: ToSchema>(mut self) -> Self
    where
        Page<T>: PartialSchema,
    {
        self.schema_of::<T>();
        let schema = Page::<T>::schema();
        self.answers_other(
            200,
            "One page of the list.",
            Some(("application/json", schema)),
        )
    }

    /// It answers with something else, or nothing.
    pub fn answers_other(
        mut self,
        status: u16,
        description: &'static str,
        content: Option<(&'static str, RefOr<Schema>)>,
    ) -> Self {
        self.answers.push(Answers {
            status,
            description,
            content,
            headers: Vec::new(),
        });
        self
    }

    /// Its last answer has this header.
    pub fn header(mut self, name: &'static str, description: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, description));
        }
        self
    }

    /// It answers with an object that has a revision.
    pub fn answers_object<T: ToSchema>(self, status: u16, description: &'static str) -> Self {
        self.answers::<T>(status, description)
            .header("ETag", "Its revision.")
    }

    /// It makes an object, which `location` names.
    pub fn creates<T: ToSchema>(self, location: &'static str) -> Self {
        self.answers::<T>(201, "Created.")
            .header("Location", location)
            .header("ETag", "Its revision.")
    }

    /// It deletes an object.
    pub fn deletes(self) -> Self {
        self.answers_other(204, "Deleted.", None)
    }

    /// It starts an operation, for whose end the caller may wait.
    pub fn starts_operation(self, under_way: &'static str) -> Self {
        let operation = ("Location", "The operation.");
        self.query::<WaitParams>()
            .answers::<Operation>(202, under_way)
            .header(operation.0, operation.1)
            .answers::<Operation>(200, "Done, where the caller waited for it.")
            .header(operation.0, operation.1)
    }

    fn schema_of<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name: Cow<'static, str> = T::name();
        self.schemas.push((name.clone().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(name))
    }
}

macro_rules! methods {
    ($($name:ident = $method:ident;)*) => {
        $(
            #[doc = concat!("A `", stringify!($method), "` method of the API.")]
            pub fn $name<H, T>(
                path: &'static str,
                access: Access,
                id: &'static str,
                handler: H,
            ) -> Route
            where
                H: Handler<T, App>,
                T: 'static,
            {
                Route::new((Method::$method, MethodFilter::$method), path, access, id, handler)
            }
        )*
    };
}

methods! {
    get = GET;
    post = POST;
    put = PUT;
    patch = PATCH;
    delete = DELETE;
}

/// A router with all of `routes`, each behind its [`Guard`].
pub fn router(routes: Vec<Route>, app: &App) -> Router<App> {
    // Verbs are segments that start with a colon, which axum takes for a mistake unless told otherwise.
    let empty = Router::new().without_v07_checks();
    routes.into_iter().fold(empty, |router, route| {
        let guard = Guard {
            app: app.clone(),
            access: route.access,
            parameters: route.query.iter().map(|p| p.name.clone()).collect(),
            body_limit: BodyLimit(route.body_limit),
        };
        let handler = route
            .handler
            .route_layer(from_fn_with_state(guard, auth::check));
        router.route(&router_path(route.path), handler)
    })
}

/// A declared path in the form in which the router matches it. The table is fixed, so a path that
/// starts a segment with a colon is a mistake its test finds; it is then simply never matched.
fn router_path(path: &str) -> String {
    split_verb(path).unwrap_or_default()
}
