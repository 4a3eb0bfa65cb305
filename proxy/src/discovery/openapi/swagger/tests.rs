use super::*;

fn merged(documents: &[&str]) -> Result<(String, bool), DocumentError> {
    let mut first = Swagger::parse(documents[0].as_bytes())?;
    let mut is_more = false;
    for document in &documents[1..] {
        is_more |= first.add(&Swagger::parse(document.as_bytes())?);
    }
    Ok((String::from_utf8(first.write()).expect("JSON is text"), is_more))
}

#[test]
fn what_is_missing_is_added_as_it_is_written_and_nothing_is_overridden() {
    let local = r#"{"swagger":"2.0","info":{"title":"Kubernetes"},"paths":{"/a":{"get":1},"/c":{}},"definitions":{"A":{"local": true}}}"#;
    let peer = r#"{"swagger":"2.0","info":{"title":"peer"},"x":1,"paths":{"/a":{"get":2},"/b":{ "post" : 1.50 }},
        "definitions":{"A":{"local":false},"B":{"description":"<b>\u0026"}}}"#;
    let newest = r#"{"swagger":"2.0","definitions":{"B":{},"C":{"$ref":"\/x"}}}"#;
    let (text, is_more) = merged(&[local, peer, newest]).expect("documents");
    assert!(is_more);
    assert_eq!(
        text,
        r#"{"definitions":{"A":{"local": true},"B":{"description":"<b>\u0026"},"C":{"$ref":"\/x"}},"paths":{"/a":{"get":1},"/b":{ "post" : 1.50 },"/c":{}},"info":{"title":"Kubernetes"},"swagger":"2.0"}"#
    );
    let (_, is_more) = merged(&[local, local, r#"{"swagger":"2.0"}"#]).expect("documents");
    assert!(!is_more);
}

#[test]
fn what_is_no_document_is_refused() {
    let nested = |depth: usize| {
        format!(r#"{{"swagger":"2.0","paths":{{"/a":{{"x":{}{}}}}}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    let names: Vec<String> = (0..=MOST_NAMES).map(|number| format!("\"{number}\":{{}}")).collect();
    let many = format!(r#"{{"swagger":"2.0","paths":{{{}}}}}"#, names.join(","));
    assert!(Swagger::parse(nested(MAX_DEPTH - 3).as_bytes()).is_ok());
    for (text, expected) in [
        ("", "not the JSON it should be"),
        ("1", "not the JSON it should be"),
        ("[]", "not the JSON it should be"),
        (r#"{"swagger":"2.0","paths":{"#, "not the JSON it should be"),
        (r#"{"swagger":"2.0","paths":{}} {}"#, "not the JSON it should be"),
        (r#"{"swagger":"2.0","paths":[1]}"#, "not the JSON it should be"),
        (r#"{"swagger":"2.0","paths":null}"#, "not the JSON it should be"),
        (r#"{"swagger":"2.0","paths":{"/a":1}}"#, "\"/a\" is not described by an object"),
        (r#"{"swagger":"2.0","definitions":{"A":null}}"#, "\"A\" is not described by an object"),
        (r#"{"openapi":"3.0.0","paths":{}}"#, "not OpenAPI 2.0"),
        (r#"{"swagger":2.0}"#, "not OpenAPI 2.0"),
        ("{}", "not OpenAPI 2.0"),
        (&nested(MAX_DEPTH - 2), "nested deeper than 512 levels"),
        (&"[".repeat(1_000_000), "nested deeper than 512 levels"),
        (&many, "not the JSON it should be"),
    ] {
        let error = Swagger::parse(text.as_bytes()).expect_err("no document");
        assert_eq!(error.to_string(), expected, "{}", &text[..text.len().min(64)]);
    }
}

#[test]
fn what_nobody_serves_is_taken_out_with_the_types_that_only_it_needs() {
    let document = r##"{"swagger":"2.0","paths":{
        "/apis/a.io/v1/namespaces/{namespace}/gone/{name}":{"$ref":"#/definitions/Gone"},
        "/apis/a.io/v1/watch/gone":{"$ref":"#/definitions/GoneList"},
        "/apis/a.io/v1/stays":{"$ref":"#/definitions/Stays"},
        "/version/":{}},
        "definitions":{
        "Gone":{"x":[{"$ref":"#/definitions/OfGone"},{"$ref":"#/definitions/Shared"},{"$ref":"#/definitions/Gone"}]},
        "GoneList":{"$ref":"#/definitions/Gone"},"OfGone":{},"Shared":{},"Used":{},
        "Stays":{"$ref":"#/definitions/Shared"},"Nobody's":{"$ref":"#/definitions/Used"}}}"##;
    let mut swagger = Swagger::parse(document.as_bytes()).expect("a document");
    let gone: Vec<Api> = Api::of_path("/apis/a.io/v1/gone").into_iter().collect();
    assert!(swagger.apis().contains(&gone[0]));
    let names = swagger.take_out(&gone);
    assert!(names.definitions.iter().eq(["Gone", "GoneList", "OfGone"]), "{names:?}");
    assert_eq!(names.paths.len(), 2, "{names:?}");
    assert!(swagger.paths.0.keys().eq(["/apis/a.io/v1/stays", "/version/"]));
    assert!(swagger.definitions.0.keys().eq(["Nobody's", "Shared", "Stays", "Used"]));
}

#[test]
fn growth_is_what_adding_costs() {
    let one = r#"{"swagger":"2.0","paths":{"/a":{"x":1}},"definitions":{"A":{}}}"#;
    let other = r#"{"swagger":"2.0","paths":{"/a":{},"/b":{"y":22}},"definitions":{"A":{},"BB":{}}}"#;
    let [mut one, other] = [one, other].map(|text| Swagger::parse(text.as_bytes()).expect("a document"));
    let sum = one.size() + one.growth(&other);
    one.add(&other);
    assert_eq!((one.size(), one.growth(&other)), (sum, 0));
}
