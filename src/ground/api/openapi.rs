//! The API's own description, at `/api/openapi.json`.
//!
//! One table says of each endpoint what it takes and answers; the document is made from it, once.
//! It lies beside the router, and a test holds one against the other: no route is without a row, no
//! row without a route. What a program needs to know of a body is the names, types and necessity of
//! its fields; what they mean is in the README.
//!
//! The console is not in it, which is for people, nor is `/v2/` with its tokens: names have slashes
//! there, and the OCI distribution specification says what is answered.

use std::sync::OnceLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, RefOr,
    Required, ResponseBuilder, SecurityRequirement,
};

use super::listing::PAGE_ROWS_MAX;

/// The document.
pub async fn document() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    // It is the same as long as the program runs, and made of what is known to be JSON.
    let text = TEXT.get_or_init(|| make().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    /// A satellite, with the credentials of its enrolment.
    Satellite,
    /// A person or a token with any role.
    Viewer,
    Admin,
    SystemAdmin,
}

/// What is answered.
#[derive(Clone, Copy)]
enum Answers {
    Nothing,
    Text,
    /// An object with these fields, and more.
    One(&'static str),
    /// A list of such objects.
    Many(&'static str),
}

struct Row {
    method: HttpMethod,
    path: &'static str,
    summary: &'static str,
    who: Who,
    /// The fields of the query.
    query: &'static str,
    /// The fields of the body, each `name:type`, with `!` where it must be there.
    body: Option<&'static str>,
    status: u16,
    answers: Answers,
    /// Statuses of its own, beside those that all of its kind have.
    more: &'static [u16],
    /// Its answer has an `ETag`, or it takes `If-Match`.
    versioned: bool,
}

impl Row {
    const fn new(
        method: HttpMethod,
        path: &'static str,
        who: Who,
        summary: &'static str,
        answers: Answers,
    ) -> Self {
        let (query, body, status, more) = ("", None, 200, &[]);
        Self { method, path, summary, who, query, body, status, answers, more, versioned: false }
    }

    const fn query(self, query: &'static str) -> Self {
        Self { query, ..self }
    }

    const fn body(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    const fn or(self, more: &'static [u16]) -> Self {
        Self { more, ..self }
    }

    const fn versioned(self) -> Self {
        Self { versioned: true, ..self }
    }

    fn changes(&self) -> bool {
        self.method != HttpMethod::Get
    }

    /// All statuses but the one of success.
    fn refusals(&self) -> Vec<u16> {
        let is = |status, when: bool| when.then_some(status);
        let takes = self.body.is_some();
        let is_named = self.path.contains('{');
        // A segment that is no UTF-8, a field of the query that is given twice, a body that is
        // none.
        let input = takes || is_named || !self.query.is_empty();
        let known = [
            is(400, input || self.versioned),
            is(401, self.who != Who::Anyone),
            is(403, matches!(self.who, Who::Admin | Who::SystemAdmin)),
            is(404, is_named),
            is(408, true),
            is(412, self.versioned && self.changes()),
            is(413, takes),
            is(429, self.who != Who::Anyone),
            is(500, true),
            is(503, true),
        ];
        let mut all: Vec<u16> =
            known.into_iter().flatten().chain(self.more.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn operation(&self) -> Operation {
        let mut operation =
            OperationBuilder::new().summary(Some(self.summary)).operation_id(Some(self.id())).tag(
                self.path
                    .trim_start_matches("/api/")
                    .trim_start_matches('/')
                    .split('/')
                    .next()
                    .unwrap_or_default(),
            );
        for name in self.path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(ObjectBuilder::new().schema_type(Type::String).min_length(Some(1))));
            operation = operation.parameter(parameter);
        }
        for name in self.query.split(' ').filter(|name| !name.is_empty()) {
            let schema = match name {
                "limit" => ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .maximum(Some(PAGE_ROWS_MAX)),
                _ => ObjectBuilder::new().schema_type(Type::String),
            };
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .schema(Some(schema));
            operation = operation.parameter(parameter);
        }
        if self.versioned && self.changes() {
            let parameter = ParameterBuilder::new()
                .name("If-Match")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("The ETag of what was read; any version without it"))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
            operation = operation.parameter(parameter);
        }
        if let Some(fields) = self.body {
            let content = ContentBuilder::new().schema(Some(object(fields))).build();
            let body =
                RequestBodyBuilder::new().content(JSON, content).required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        let mut response = ResponseBuilder::new().description("Done");
        response = match self.answers {
            Answers::Nothing => response,
            Answers::Text => response.content("text/plain", ContentBuilder::new().build()),
            Answers::One(fields) => {
                response.content(JSON, ContentBuilder::new().schema(Some(object(fields))).build())
            }
            Answers::Many(fields) => {
                let list = ArrayBuilder::new().items(object(fields));
                response.content(JSON, ContentBuilder::new().schema(Some(list)).build())
            }
        };
        operation = operation.response(self.status.to_string(), response);
        for status in self.refusals() {
            // A limit is answered as Go answers it.
            let fields =
                if status == 429 { "error!:string" } else { "message!:string code!:integer" };
            let content = ContentBuilder::new().schema(Some(object(fields))).build();
            let refusal =
                ResponseBuilder::new().description(meaning(status)).content(JSON, content);
            operation = operation.response(status.to_string(), refusal);
        }
        let schemes: &[&str] = match self.who {
            Who::Anyone => &[],
            Who::Satellite => &["basic"],
            Who::Viewer | Who::Admin | Who::SystemAdmin => &["bearer", "basic"],
        };
        let none: [String; 0] = [];
        for scheme in schemes {
            operation = operation.security(SecurityRequirement::new(*scheme, none.clone()));
        }
        operation.build()
    }

    /// Such as `get_api_groups_group`.
    fn id(&self) -> String {
        let method = method(&self.method);
        let path = self.path.replace(['{', '}'], "").replace(['/', '.'], "_");
        format!("{method}{path}")
    }
}

fn method(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Get => "get",
        HttpMethod::Post => "post",
        HttpMethod::Patch => "patch",
        HttpMethod::Delete => "delete",
        _ => "other",
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be understood, or names what there is not",
        401 => "Who asks is not known",
        403 => "Not allowed",
        404 => "Not there",
        408 => "The request was not complete in time",
        409 => "Not in this state of things",
        412 => "It has changed since it was read",
        413 => "The body is too long",
        422 => "The body is not what was expected",
        429 => "Too many requests",
        503 => "The server cannot answer now",
        _ => "The server failed",
    }
}

/// Fields `name:type`, with `!` after the names of those that must be there.
fn object(fields: &str) -> Object {
    let mut object = ObjectBuilder::new().schema_type(Type::Object);
    for field in fields.split_ascii_whitespace() {
        let (name, kind) = field.split_once(':').unwrap_or((field, "string"));
        if let Some(name) = name.strip_suffix('!') {
            object = object.required(name);
        }
        object = object.property(name.trim_end_matches('!'), schema(kind));
    }
    object.build()
}

fn schema(kind: &str) -> RefOr<Schema> {
    let plain = |kind: Type| ObjectBuilder::new().schema_type(kind);
    let object = match kind {
        "integer" => plain(Type::Integer),
        "number" => plain(Type::Number),
        "boolean" => plain(Type::Boolean),
        "object" => plain(Type::Object),
        "policy" => return object(POLICY).into(),
        "any" => plain(Type::Object).schema_type(SchemaType::AnyValue),
        "strings" => {
            let items = plain(Type::String);
            return ArrayBuilder::new().items(items).build().into();
        }
        "array" => return ArrayBuilder::new().items(plain(Type::Object)).build().into(),
        _ => plain(Type::String),
    };
    object.build().into()
}

fn make() -> OpenApi {
    let mut paths = Paths::new();
    for row in ROWS {
        paths.add_path_operation(row.path, vec![row.method.clone()], row.operation());
    }
    let http = |scheme| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
    let components = ComponentsBuilder::new()
        .security_scheme("basic", http(HttpAuthScheme::Basic))
        .security_scheme("bearer", http(HttpAuthScheme::Bearer));
    let info = InfoBuilder::new()
        .title("Ground Control")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Says to a fleet of satellites which images to hold"));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

const JSON: &str = "application/json";

use Answers::{Many, Nothing, One, Text};
use HttpMethod::{Delete, Get, Patch, Post};
use Who::{Admin, Anyone, SystemAdmin, Viewer};

const GROUP: &str = "ID!:integer GroupName!:string RegistryUrl!:string Registry!:string \
    Projects!:strings CreatedAt!:string UpdatedAt!:string Artifacts!:array Platforms!:strings \
    Tags!:string ETag!:string";
const CONFIG: &str = "ID!:integer ConfigName!:string RegistryUrl!:string Config!:object \
    CreatedAt!:string UpdatedAt!:string ETag!:string";
const SATELLITE: &str = "ID!:integer Name!:string CreatedAt!:string UpdatedAt!:string \
    LastSeen!:object HeartbeatInterval!:object";
const DETAILS: &str = "ID!:integer Name!:string CreatedAt!:string UpdatedAt!:string \
    LastSeen!:object HeartbeatInterval!:object Groups!:strings ConfigName!:string Labels!:object \
    Lifecycle!:string ETag!:string";
const ROLLOUT: &str = "name!:string group!:string state!:object policy!:policy phase!:string \
    reason!:string batch!:integer batches!:integer actor!:string created_at!:string \
    updated_at!:string etag!:string";
const POLICY: &str = "sequence:array successThreshold:string errorThreshold:string \
    updateTimeout:string disruptionBudget:object approval:string downloadOnly:boolean \
    activateAt:string";
const USER: &str = "id!:integer username!:string role!:string created_at!:string";
const TOKEN: &str = "name!:string role!:string username!:string created_at!:string \
    expires_at!:string used_at:any";
const BATCH: &str = "name!:string config_name!:string groups!:strings labels!:object \
    devices_max!:integer devices!:integer approval!:boolean created_at!:string expires_at!:string";
const ENROLLED: &str = "auth!:object state!:string";
const MEMBER: &str = "satellite!:string group!:string";
const ENROL: &[u16] = &[400, 401, 403, 409, 429];
const PAGE: &str = "selector after limit";
const SPIRE: &str = "enabled!:boolean connected!:boolean";

const ROWS: &[Row] = &[
    Row::new(Get, "/ping", Anyone, "Whether the server is there", Text),
    Row::new(Get, "/health", Anyone, "Whether the database answers", One("status!:string")),
    Row::new(Get, "/metrics", Anyone, "Metrics for Prometheus", Text),
    Row::new(Get, "/api/openapi.json", Anyone, "This document", One("openapi!:string")),
    Row::new(Post, "/login", Anyone, "Begins a session", One("token!:string expires_at!:string"))
        .body("username!:string password!:string")
        .or(&[401, 429]),
    Row::new(Get, "/satellites/ztr/{token}", Anyone, "Enrols as Go 0.0.4", One(ENROLLED)).or(ENROL),
    Row::new(Post, "/satellites/ztr", Anyone, "Enrols", One(ENROLLED))
        .body("token!:string facts:object")
        .or(ENROL),
    Row::new(Get, "/satellites/spiffe-ztr", Anyone, "Enrols by a certificate", One(ENROLLED))
        .or(ENROL),
    Row::new(Post, "/satellites/sync", Who::Satellite, "Takes a satellite's report", Nothing)
        .body("name:string"),
    Row::new(Post, "/sat/refresh", Who::Satellite, "New credentials", One("secret!:string"))
        .or(&[409]),
    Row::new(Post, "/api/logout", Viewer, "Ends the session", Nothing).status(204).or(&[400]),
    Row::new(Get, "/api/users", Viewer, "Lists users", Many(USER)),
    Row::new(Post, "/api/users", SystemAdmin, "Adds a user", One(USER))
        .body("username!:string password!:string role:string")
        .status(201)
        .or(&[409]),
    Row::new(Patch, "/api/users/password", Viewer, "Changes one's own password", Nothing)
        .body("current_password!:string new_password!:string")
        .status(204)
        .or(&[403, 404])
        .versioned(),
    Row::new(Get, "/api/users/{username}", Viewer, "Shows a user", One(USER)).versioned(),
    Row::new(Delete, "/api/users/{username}", SystemAdmin, "Removes a user", Nothing)
        .status(204)
        .versioned(),
    Row::new(Patch, "/api/users/{username}/password", SystemAdmin, "Sets a password", Nothing)
        .body("new_password!:string")
        .status(204)
        .versioned(),
    Row::new(Get, "/api/groups", Viewer, "Lists groups", Many(GROUP)),
    Row::new(Post, "/api/groups/sync", Admin, "Makes or changes a group", One(GROUP))
        .body("group!:string registry:string artifacts:array platforms:strings tags:string")
        .or(&[409])
        .versioned(),
    Row::new(Post, "/api/groups/satellite", Admin, "Puts a satellite into a group", One(""))
        .body(MEMBER)
        .versioned(),
    Row::new(Delete, "/api/groups/satellite", Admin, "Takes a satellite out of a group", One(""))
        .body(MEMBER)
        .versioned(),
    Row::new(Get, "/api/groups/{group}", Viewer, "Shows a group", One(GROUP)).versioned(),
    Row::new(Delete, "/api/groups/{group}", SystemAdmin, "Removes a group", One(""))
        .or(&[409])
        .versioned(),
    Row::new(
        Get,
        "/api/groups/{group}/satellites",
        Viewer,
        "Lists a group's satellites",
        Many("ID!:integer Name!:string CreatedAt!:string UpdatedAt!:string"),
    )
    .query(PAGE),
    Row::new(
        Get,
        "/api/groups/{group}/tags",
        Viewer,
        "Shows what a group's tags mean",
        One("mode!:string tags!:array"),
    ),
    Row::new(
        Post,
        "/api/groups/{group}/tags/approve",
        Admin,
        "Takes what a person saw a group's tags mean",
        One("approved!:object"),
    )
    .body("tags!:object")
    .or(&[409])
    .versioned(),
    Row::new(Get, "/api/configs", Viewer, "Lists configurations", Many(CONFIG)),
    Row::new(Post, "/api/configs", Admin, "Makes a configuration", Nothing)
        .body("config_name!:string config!:object")
        .status(201)
        .or(&[409]),
    Row::new(
        Post,
        "/api/configs/satellite",
        Admin,
        "Assigns a configuration to a satellite",
        One(""),
    )
    .body("satellite!:string config_name!:string")
    .versioned(),
    Row::new(Get, "/api/configs/{config}", Viewer, "Shows a configuration", One(CONFIG))
        .versioned(),
    Row::new(Patch, "/api/configs/{config}", Admin, "Merges a patch (RFC 7396)", One(CONFIG))
        .body("")
        .versioned(),
    Row::new(Delete, "/api/configs/{config}", Admin, "Removes a configuration", One(""))
        .versioned(),
    Row::new(Get, "/api/satellites", Viewer, "Lists satellites", Many(DETAILS)).query(PAGE),
    Row::new(Post, "/api/satellites", Admin, "Adds a satellite", One("token!:string"))
        .body("name!:string groups:strings config_name!:string labels:object"),
    Row::new(Get, "/api/satellites/active", Viewer, "Lists satellites online", Many(SATELLITE))
        .query(PAGE),
    Row::new(Get, "/api/satellites/stale", Viewer, "Lists satellites away", Many(SATELLITE))
        .query(PAGE),
    Row::new(Get, "/api/satellites/{satellite}", Viewer, "Shows a satellite", One(DETAILS))
        .versioned(),
    Row::new(Patch, "/api/satellites/{satellite}", Admin, "Changes a satellite", One(DETAILS))
        .body("labels:object config_name:string groups:strings")
        .versioned(),
    Row::new(Delete, "/api/satellites/{satellite}", Admin, "Removes a satellite", One(""))
        .versioned(),
    Row::new(
        Post,
        "/api/satellites/{satellite}/token",
        Admin,
        "Makes a new enrolment token",
        One("token!:string"),
    ),
    Row::new(Post, "/api/satellites/{satellite}/revoke", Admin, "Ends its credentials", One("")),
    Row::new(Post, "/api/satellites/{satellite}/approve", Admin, "Lets a device in", One(""))
        .or(&[409]),
    Row::new(
        Get,
        "/api/satellites/{satellite}/status",
        Viewer,
        "Its last report, as Go answers it",
        One("ID!:integer SatelliteID!:integer Activity!:string"),
    ),
    Row::new(
        Get,
        "/api/satellites/{satellite}/images",
        Viewer,
        "The images that it said it holds",
        Many("ID!:integer Reference!:string SizeBytes!:integer CreatedAt!:string"),
    ),
    Row::new(
        Get,
        "/api/satellites/{satellite}/state",
        Viewer,
        "What it is to hold, against what it holds",
        One("name!:string connection!:string updated!:string health!:string lifecycle!:string \
             reason!:string images!:array"),
    ),
    Row::new(
        Get,
        "/api/satellites/{satellite}/history",
        Viewer,
        "Its last 30 days, an hour or six hours each",
        Many(
            "at!:string seconds!:integer online_seconds!:integer received_bytes:any \
             flash_written_bytes:any flash_used_percent:any storage_used_bytes!:integer \
             images!:integer images_behind!:integer health!:string",
        ),
    )
    .query("after limit"),
    Row::new(
        Get,
        "/api/history",
        Viewer,
        "How many satellites were connected, hour by hour",
        Many(
            "at!:string seconds!:integer online!:integer stale!:integer offline!:integer \
             unknown!:integer",
        ),
    )
    .query("after limit"),
    Row::new(Get, "/api/rollouts", Viewer, "Lists rollouts", Many(ROLLOUT))
        .query("before limit")
        .or(&[404]),
    Row::new(Post, "/api/rollouts", Admin, "Starts a rollout", One(ROLLOUT))
        .body("name!:string group!:string state!:object policy:policy")
        .status(201)
        .or(&[409]),
    Row::new(Get, "/api/rollouts/{rollout}", Viewer, "Shows a rollout", One(ROLLOUT)).versioned(),
    Row::new(
        Get,
        "/api/rollouts/{rollout}/satellites",
        Viewer,
        "The satellites it has chosen",
        Many("satellite!:string batch!:integer state!:string connection!:string reason!:string"),
    )
    .query("after limit"),
    Row::new(
        Post,
        "/api/rollouts/{rollout}/{action}",
        Admin,
        "pause, resume, approve or abort",
        One(ROLLOUT),
    )
    .or(&[409])
    .versioned(),
    Row::new(Get, "/api/images", Viewer, "Images held, or who holds one", Many(""))
        .query("digest after limit"),
    Row::new(Get, "/api/publishing", Viewer, "How publishing elsewhere goes", One("to!:string")),
    Row::new(Post, "/api/satellites/register", SystemAdmin, "As Go without SPIRE: 503", One(""))
        .body("satellite_name!:string selectors!:strings attestation_method!:string"),
    Row::new(Get, "/api/spire/status", SystemAdmin, "Whether SPIRE attests", One(SPIRE)),
    Row::new(Get, "/api/spire/agents", SystemAdmin, "As Go without SPIRE: 503", One("")),
    Row::new(Get, "/api/batches", Viewer, "Lists batches", Many(BATCH)),
    Row::new(Post, "/api/batches", Admin, "Makes an enrolment token for a batch", One(BATCH))
        .body(
            "name!:string config_name!:string devices!:integer groups:strings labels:object \
               approval:boolean expires_in:any",
        )
        .status(201)
        .or(&[409]),
    Row::new(Delete, "/api/batches/{batch}", Admin, "Ends a batch's token", Nothing).status(204),
    Row::new(
        Get,
        "/api/waiting",
        Viewer,
        "The devices that wait for approval",
        Many("name!:string batch!:string device!:string labels!:object since!:string"),
    )
    .query("batch"),
    Row::new(Get, "/api/tokens", Viewer, "Lists API tokens", Many(TOKEN)),
    Row::new(Post, "/api/tokens", Admin, "Makes an API token", One(TOKEN))
        .body("name!:string role:string expires_in:any")
        .status(201)
        .or(&[409]),
    Row::new(Delete, "/api/tokens/{token}", Admin, "Ends an API token", Nothing).status(204),
    Row::new(
        Get,
        "/api/audit",
        Viewer,
        "Who changed what",
        Many("id!:integer at!:string actor!:string action!:string object!:string"),
    )
    .query("after before limit"),
    Row::new(
        Get,
        "/api/events",
        Viewer,
        "What happened to satellites",
        Many(
            "id!:integer at!:string kind!:string satellite!:string object!:string message!:string",
        ),
    )
    .query("after before satellite limit"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The routes of the router, as its text has them.
    fn routes() -> BTreeSet<String> {
        let text = include_str!("mod.rs");
        let (outer, people) = text.split_once("fn people()").unwrap();
        let (people, _) = people.split_once("\n}").unwrap();
        let oci = include_str!("../oci.rs");
        let mut routes = BTreeSet::new();
        for (prefix, text) in [("", outer), ("/api", people), ("", oci)] {
            for route in text.split(".route(").skip(1) {
                let path = route.split('"').nth(1).unwrap();
                let end = route.find("\n        .").unwrap_or(route.len());
                for method in ["get", "post", "patch", "delete"] {
                    let word = format!("{method}(");
                    let is_there = |found: usize| {
                        !route[..found]
                            .ends_with(|sign: char| sign.is_alphanumeric() || sign == '_')
                    };
                    let mut found = route[..end].match_indices(&word).map(|(at, _)| at);
                    if found.any(is_there) {
                        routes.insert(format!("{method} {prefix}{path}"));
                    }
                }
            }
        }
        routes.retain(|route| !route.contains(" /v2") && !route.contains(" /service/"));
        routes
    }

    #[test]
    fn every_route_is_documented_and_every_row_is_routed() {
        let rows: BTreeSet<String> =
            ROWS.iter().map(|row| format!("{} {}", method(&row.method), row.path)).collect();
        assert!(rows.len() > 50 && rows.len() == ROWS.len());
        assert_eq!(rows.difference(&routes()).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(routes().difference(&rows).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn the_document_says_what_the_table_says() {
        let document = serde_json::to_value(make()).unwrap();
        let post = &document["paths"]["/api/groups/sync"]["post"];
        let body = &post["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["required"], serde_json::json!(["group"]));
        assert_eq!(post["responses"]["412"]["description"], meaning(412));
        let get = &document["paths"]["/api/groups/{group}"]["get"];
        assert_eq!(
            (&get["responses"]["412"], &get["parameters"][0]["in"]),
            (&serde_json::Value::Null, &"path".into())
        );
        assert_eq!(document["paths"]["/ping"]["get"]["security"], serde_json::Value::Null);
    }
}
