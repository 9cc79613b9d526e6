//! A record as one line of JSON: `{"id":1,"data":"text"}`, or `{"id":1,"base64":"/w=="}` if the bytes are not UTF-8. [`decode`] reads
//! the lines of [`encode`] back byte for byte.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::ids;
use super::target::Target;

/// The line of a record, without the newline. Equal records give equal lines. `expires_ms`: the deadline of a key, if it has one.
pub(crate) fn encode(target: &Target, data: &[u8], expires_ms: Option<u64>) -> String {
    // Without an object between, where there are many of them.
    let name = match target {
        Target::Id(id) => format!("\"id\":{id}"),
        Target::Key { space, key } => match str::from_utf8(key) {
            Ok(text) => format!("\"space\":{},\"key\":{}", quoted(space), quoted(text)),
            Err(_) => format!("\"space\":{},\"key64\":{}", quoted(space), quoted(&STANDARD.encode(key))),
        },
    };
    let end = expires_ms.map_or(String::new(), |at| format!(",\"{EXPIRES}\":{at}"));
    match str::from_utf8(data) {
        Ok(text) => format!("{{{name}{end},\"data\":{}}}", quoted(text)),
        Err(_) => format!("{{{name}{end},\"base64\":{}}}", quoted(&STANDARD.encode(data))),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| Value::from(text).to_string())
}

/// Adds the name of a record to an object: its id, or `space` and `key`; `key64`, if the key is no text.
pub(crate) fn insert_target(fields: &mut Map<String, Value>, target: &Target) {
    match target {
        Target::Id(id) => _ = fields.insert("id".into(), (*id).into()),
        Target::Key { space, key } => {
            fields.insert("space".into(), space.as_str().into());
            match str::from_utf8(key) {
                Ok(text) => fields.insert("key".into(), text.into()),
                Err(_) => fields.insert("key64".into(), STANDARD.encode(key).into()),
            };
        }
    }
}

/// Adds the bytes to an object: as `data` if they are text, as `base64` otherwise.
pub(crate) fn insert_data(fields: &mut Map<String, Value>, data: &[u8]) {
    match str::from_utf8(data) {
        Ok(text) => fields.insert("data".into(), text.into()),
        Err(_) => fields.insert("base64".into(), STANDARD.encode(data).into()),
    };
}

/// The field of the deadline of a key: milliseconds since 1970.
const EXPIRES: &str = "expires_ms";

/// Adds the deadline to an object, if there is one.
pub(crate) fn insert_expiry(fields: &mut Map<String, Value>, expires_ms: Option<u64>) {
    if let Some(at) = expires_ms {
        fields.insert(EXPIRES.into(), at.into());
    }
}

/// The fields that `read --json` and `watch --json` add to a record. They are no part of the record.
const ADDED: [&str; 3] = ["version", "length", "change"];

/// The name of the record, its bytes, and the deadline of a line. A field that is neither part of a record nor added by this command is an error:
/// the store would not have what the line says.
pub(crate) fn decode(line: &[u8]) -> Result<(Target, Vec<u8>, Option<u64>), String> {
    let mut fields = object(line)?;
    let target = take_target(&mut fields)?;
    let data = take_data(&mut fields)?;
    let expires_ms = match fields.remove(EXPIRES) {
        None => None,
        Some(_) if matches!(target, Target::Id(_)) => {
            return Err(format!(
                "there is {EXPIRES:?}, and records with an \"id\" do not expire; use \"space\" and \"key\""
            ));
        }
        Some(at) => Some(
            at.as_u64()
                .ok_or_else(|| format!("{EXPIRES:?} is {at}, not a number of milliseconds since 1970"))?,
        ),
    };
    if let Some(name) = fields.keys().find(|name| !ADDED.contains(&name.as_str())) {
        return Err(format!(
            "the field {name:?} is not known; a record has \"id\", or \"space\" and \"key\", and \"data\" or \"base64\""
        ));
    }
    Ok((target, data.ok_or("there is neither \"data\" nor \"base64\"")?, expires_ms))
}

/// The fields of a line.
pub(crate) fn object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let Object { fields, repeated } = serde_json::from_slice(line).map_err(|error| {
        // To the parser this is line 1, whichever line it is to the user.
        let error = error.to_string().replace(" at line 1 column ", " at column ");
        format!("not a JSON object: {error} (for lines with columns: --format csv or delimited)")
    })?;
    match repeated {
        Some(name) => Err(format!("the field {name:?} is there twice; leave one of them")),
        None => Ok(fields),
    }
}

/// An object, and the first of its fields that is there twice; a JSON parser keeps one of them without a word.
struct Object {
    fields: Map<String, Value>,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"id\":1,\"data\":\"text\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let (mut fields, mut repeated) = (Map::new(), None);
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                repeated.get_or_insert(name);
            } else {
                fields.insert(name, value);
            }
        }
        Ok(Object { fields, repeated })
    }
}

/// Takes the name of the record out.
fn take_target(fields: &mut Map<String, Value>) -> Result<Target, String> {
    let space = match fields.remove("space") {
        Some(Value::String(space)) if !fields.contains_key("id") => space,
        Some(Value::String(_)) => return Err("there are both \"id\" and \"space\"".into()),
        Some(_) => return Err("\"space\" is not a string".into()),
        None => return take_id(fields).map(Target::Id),
    };
    let key = match (fields.remove("key"), fields.remove("key64")) {
        (Some(Value::String(text)), None) => text.into_bytes(),
        (None, Some(Value::String(text))) => {
            STANDARD.decode(text).map_err(|error| format!("\"key64\" is not base64: {error}"))?
        }
        (None, None) => return Err("there is a \"space\", and neither \"key\" nor \"key64\"".into()),
        (Some(_), Some(_)) => return Err("there are both \"key\" and \"key64\"".into()),
        _ => return Err("\"key\" and \"key64\" are strings".into()),
    };
    Ok(Target::Key { space, key })
}

/// Takes the id out.
pub(crate) fn take_id(fields: &mut Map<String, Value>) -> Result<u64, String> {
    match fields.remove("id") {
        Some(Value::Number(number)) => {
            number.as_u64().ok_or_else(|| format!("\"id\" is {number}, not a number from 0 to 2^64-1"))
        }
        Some(Value::String(text)) => ids::parse_id(&text),
        Some(_) => Err("\"id\" is not a number".into()),
        None => Err("there is no \"id\"".into()),
    }
}

/// Takes the bytes out, if there are any.
pub(crate) fn take_data(fields: &mut Map<String, Value>) -> Result<Option<Vec<u8>>, String> {
    match (fields.remove("data"), fields.remove("base64")) {
        (Some(Value::String(text)), None) => Ok(Some(text.into_bytes())),
        (None, Some(Value::String(text))) => match STANDARD.decode(text) {
            Ok(data) => Ok(Some(data)),
            Err(error) => Err(format!("\"base64\" is not base64: {error}")),
        },
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("there are both \"data\" and \"base64\"; leave one of them".into()),
        _ => Err("\"data\" and \"base64\" are strings".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_byte_for_byte() {
        let every_byte: Vec<u8> = (0..=255).collect();
        for data in [&b""[..], b"plain", b"\"\\\0\x1b\n\r\x7f", "🦀\u{2028}".as_bytes(), b"\xff", &every_byte]
        {
            for id in [0, 1, u64::MAX] {
                let key = Target::Key { space: "s".into(), key: data.to_vec() };
                for target in [Target::Id(id), key] {
                    let end = Some(id).filter(|_| matches!(target, Target::Key { .. }));
                    let line = encode(&target, data, end);
                    assert!(!line.contains('\n'), "{line}");
                    assert_eq!(decode(line.as_bytes()), Ok((target, data.to_vec(), end)));
                }
            }
        }
    }

    #[test]
    fn text_is_readable_and_the_rest_is_base64() {
        assert_eq!(encode(&Target::Id(7), "é".as_bytes(), None), r#"{"id":7,"data":"é"}"#);
        assert_eq!(encode(&Target::Id(7), b"\xff", None), r#"{"id":7,"base64":"/w=="}"#);
    }

    #[test]
    fn a_repeated_field_inside_of_a_value_is_none_of_the_record() {
        let text = r#"id":1,"id":2,{"data":"\"#;
        assert_eq!(
            decode(encode(&Target::Id(3), text.as_bytes(), None).as_bytes()),
            Ok((Target::Id(3), text.into(), None))
        );
        let added = r#"{"id":1,"version":{"a":1,"b":[{"a":1}]},"length":["id","id"],"data":"a"}"#;
        assert_eq!(decode(added.as_bytes()), Ok((Target::Id(1), b"a".to_vec(), None)));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused_with_the_reason() {
        for (line, reason) in [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            ("0041;A", "--format csv or delimited"),
            (r#"{"id":1"#, "at column 7"),
            (r#"{"data":"x"}"#, "no \"id\""),
            (r#"{"id":-1,"data":"x"}"#, "2^64-1"),
            (r#"{"id":1.5,"data":"x"}"#, "2^64-1"),
            (r#"{"id":true,"data":"x"}"#, "not a number"),
            (r#"{"space":"s","data":"x"}"#, "neither \"key\""),
            (r#"{"space":"s","key":"k","key64":"","data":"x"}"#, "both \"key\""),
            (r#"{"space":"s","id":1,"data":"x"}"#, "both \"id\""),
            (r#"{"space":1,"key":"k","data":"x"}"#, "\"space\" is not a string"),
            (r#"{"space":"s","key":"k","expires_ms":-1,"data":"x"}"#, "is -1, not a number of milliseconds"),
            (r#"{"id":1,"expires_ms":1,"data":"x"}"#, "do not expire"),
            (r#"{"space":"s","key":1,"data":"x"}"#, "are strings"),
            (r#"{"id":1,"key":"k","data":"x"}"#, "\"key\" is not known"),
            (r#"{"id":1}"#, "neither"),
            (r#"{"id":1,"data":"x","base64":""}"#, "both"),
            (r#"{"id":1,"data":5}"#, "strings"),
            (r#"{"id":1,"base64":"*"}"#, "not base64"),
            (r#"{"id":1,"data":"x","date":"y"}"#, "the field \"date\" is not known"),
            (r#"{"id":1,"date":"y"}"#, "the field \"date\" is not known"),
            (r#"{"id":1,"data":"x","id":2}"#, "the field \"id\" is there twice"),
            (r#"{"id":1,"data":"\\" , "d\u0061ta" :"y"}"#, "the field \"data\" is there twice"),
        ] {
            let error = decode(line.as_bytes()).expect_err(line);
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
