//! Encodes the stand-in's `OpenAPI` v2 document in the messages of gnostic's `openapiv2/OpenAPIv2.proto`, as far as it uses
//! them.

use prost::Message;
use serde_json::{Map, Value};

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

/// The four levels from `ParametersItem` down to a parameter of the query.
#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    non_body: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    r#in: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    r#type: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

/// `Definitions`, and `Properties` of a schema.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    additional_properties: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "22")]
    r#type: Option<TypeItem>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

/// The document that `json` is.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let info = Info { title: text(&json["info"]["title"]), version: text(&json["info"]["version"]) };
    let path = fields(&json["paths"])
        .map(|(name, item)| NamedPathItem { name: name.clone(), value: Some(path_item(item)) });
    let document = Document {
        swagger: text(&json["swagger"]),
        info: Some(info),
        paths: Some(Paths { path: path.collect() }),
        definitions: schemas(&json["definitions"]),
    };
    document.encode_to_vec()
}

fn path_item(item: &Value) -> PathItem {
    let operation = |method: &str| item.get(method).map(operation);
    PathItem {
        get: operation("get"),
        put: operation("put"),
        post: operation("post"),
        delete: operation("delete"),
        patch: operation("patch"),
    }
}

fn operation(operation: &Value) -> Operation {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
        let query = QueryParameter {
            r#in: text(&parameter["in"]),
            name: text(&parameter["name"]),
            r#type: text(&parameter["type"]),
            unique_items: parameter["uniqueItems"] == true,
        };
        let non_body = NonBodyParameter { query: Some(query) };
        ParametersItem { parameter: Some(Parameter { non_body: Some(non_body) }) }
    });
    Operation { parameters: parameters.collect(), vendor_extension: extensions(operation) }
}

fn schemas(json: &Value) -> Option<Schemas> {
    json.is_object().then(|| Schemas {
        additional_properties: fields(json)
            .map(|(name, json)| NamedSchema { name: name.clone(), value: Some(schema(json)) })
            .collect(),
    })
}

fn schema(json: &Value) -> Schema {
    Schema {
        reference: text(&json["$ref"]),
        description: text(&json["description"]),
        r#type: json["type"].as_str().map(|name| TypeItem { value: vec![name.to_owned()] }),
        properties: schemas(&json["properties"]),
        vendor_extension: extensions(json),
    }
}

/// YAML 1.2 contains JSON.
fn extensions(json: &Value) -> Vec<NamedAny> {
    let named = fields(json).filter(|(name, _)| name.starts_with("x-"));
    named
        .map(|(name, value)| NamedAny { name: name.clone(), value: Some(Any { yaml: value.to_string() }) })
        .collect()
}

fn fields(json: &Value) -> impl Iterator<Item = (&String, &Value)> {
    json.as_object().into_iter().flat_map(Map::iter)
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}
