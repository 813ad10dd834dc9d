//! The names of a call, read without a JSON parser where the body is written as Go writes it.
//!
//! Five thousand names are nearly all of a body, and kube-scheduler writes them last, without escapes. They are cut out here; the
//! little that is left goes through the parser. Whatever looks otherwise is left to the parser as a whole.

use std::borrow::Cow;

/// How Go begins the names.
const KEY: &[u8] = br#""NodeNames":["#;

/// What stands before the names, and what stands between their brackets. `None` where the body does not end in a list of them. Whether
/// the front is right is for the parser to say, and whether the list is for its reader.
///
/// An unescaped `"NodeNames":[` cannot stand in a string, so the first one is a key. With nothing but names and one `}` after it,
/// it is a key of the object that ends there, which the parser must find to be the body.
pub(super) fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = body.trim_ascii_end();
    let at = memchr::memmem::find(body, KEY)?;
    let list = body.get(at.checked_add(KEY.len())?..)?.strip_suffix(b"]}")?;
    let before = body.get(..at)?;
    let front = match before.strip_suffix(b",") {
        // A comma follows a member, never the brace.
        Some(members) => Some(members).filter(|m| !m.trim_ascii_end().ends_with(b"{"))?,
        None => Some(before).filter(|b| b.ends_with(b"{"))?,
    };
    Some((front, list))
}

/// What stands before the names as an object of its own.
pub(super) fn closed(front: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(front.len().saturating_add(1));
    object.extend_from_slice(front);
    object.push(b'}');
    object
}

/// The names of `"a","b"`. `None` where the list is written otherwise.
pub(super) fn read(list: &[u8]) -> Option<Vec<Cow<'_, str>>> {
    if list.is_empty() {
        return Some(Vec::new());
    }
    // Go escapes control characters, and `\\` begins every escape.
    if has_control(list) || memchr::memchr(b'\\', list).is_some() {
        return None;
    }
    let list = std::str::from_utf8(list).ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let mut names = Vec::with_capacity(list.len() / 16);
    let mut start = 0;
    for quote in memchr::memmem::find_iter(list.as_bytes(), br#"",""#) {
        names.push(list.get(start..quote)?);
        start = quote.checked_add(3)?;
    }
    names.push(list.get(start..)?);
    // A quote that ends no name, as in `"a" , "b"` or `"a""b"`, is inside one here.
    let are_plain = memchr::memchr_iter(b'"', list.as_bytes()).count() == names.len().checked_sub(1)?.checked_mul(2)?;
    are_plain.then(|| names.into_iter().map(Cow::Borrowed).collect())
}

/// Whether any byte is a control character. In pieces without an early end, which the compiler turns into wide compares.
fn has_control(bytes: &[u8]) -> bool {
    bytes.chunks(1024).any(|piece| piece.iter().fold(false, |has, byte| has | (*byte < b' ')))
}

#[cfg(test)]
mod tests {
    use super::super::{DecodeError, ExtenderArgs, decode_extender_args};
    use super::*;

    fn general(body: &[u8]) -> Result<ExtenderArgs<'_>, serde_json::Error> {
        use serde::Deserialize;
        ExtenderArgs::deserialize(&mut serde_json::Deserializer::from_slice(body))
    }

    #[test]
    fn bodies_that_are_written_otherwise_are_read_as_the_parser_reads_them() {
        let bodies = [
            r#"{"Pod":{"metadata":{"uid":"u"}},"Nodes":null,"NodeNames":["a","b"]}"#,
            r#"{"Pod":null,"Nodes":null,"NodeNames":[]}"#,
            r#"{"NodeNames":["a"]}"#,
            r#"{"NodeNames":[""]}"#,
            r#"{"NodeNames":["",""]}"#,
            r#"{"NodeNames":[","]}"#,
            r#"{"NodeNames":["\u0061"]}"#,
            r#"{"NodeNames":["a\",\"b"]}"#,
            r#"{"NodeNames":["a" , "b"]}"#,
            r#"{"NodeNames":["a""b"]}"#,
            r#"{"NodeNames":["a",]}"#,
            r#"{"NodeNames":["a",null]}"#,
            r#"{"NodeNames":[1,"a"]}"#,
            r#"{"NodeNames":["ü","日本"]}"#,
            "{\"NodeNames\":[\"a\u{1}\"]}",
            "{\"NodeNames\":[\"a\"]}\n",
            r#"{"NodeNames":["a"],"Pod":{"metadata":{"uid":"u"}}}"#,
            r#"{"NodeNames":["a"],"nodenames":["b"]}"#,
            r#"{"nodenames":["b"],"NodeNames":["a"]}"#,
            r#"{"Pod":{"NodeNames":["x"]},"NodeNames":["y"]}"#,
            r#"{"Pod":{"NodeNames":["x"]}}"#,
            r#"{"Pod":{"NodeNames":["x"]}"#,
            r#"{"Pod":{"metadata":{"uid":"u"},"NodeNames":["x"]}"#,
            r#"{"Pod":{}}{"NodeNames":["x"]}"#,
            r#"{"Pod":{}},"NodeNames":["x"]}"#,
            r#"{,"NodeNames":["x"]}"#,
            r#"{ ,"NodeNames":["x"]}"#,
            r#"{"Pod":{},,"NodeNames":["x"]}"#,
            r#""NodeNames":["x"]}"#,
            r#"["NodeNames":["x"]}"#,
            r#"{"Pod":{"metadata":{"annotations":{"k":"\"NodeNames\":[\"y\"]}"}}},"NodeNames":["x"]}"#,
            r#"{"Pod":{"metadata":{"annotations":{"k":"\"NodeNames\":[\"y\"]}"}}}}"#,
            r#"{"Pod":5,"NodeNames":["x"]}"#,
            r#"{"Nodes":{"items":[]},"NodeNames":["x"]}"#,
        ];
        let mut split_count = 0;
        for body in bodies.map(str::as_bytes) {
            split_count += usize::from(split(body).and_then(|(_, list)| read(list)).is_some());
            let told = String::from_utf8_lossy(body).into_owned();
            match (decode_extender_args(body), general(body)) {
                (Ok(quick), Ok(slow)) => assert_eq!(quick, slow, "{told}"),
                (Err(DecodeError::Malformed { .. }), Err(_)) => {}
                (quick, slow) => panic!("{told}: {quick:?}, the parser says {slow:?}"),
            }
        }
        assert!(split_count > 10, "only {split_count} bodies were split at all");
    }

    #[test]
    fn what_go_writes_is_split() {
        let (front, names) = split(br#"{"Pod":{"a":1},"Nodes":null,"NodeNames":["a","b"]}"#).unwrap();
        assert_eq!(closed(front).as_slice(), br#"{"Pod":{"a":1},"Nodes":null}"#);
        assert_eq!(read(names).unwrap(), ["a", "b"]);
    }
}
