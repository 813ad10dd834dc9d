//! Which version of which pod a call is for, read from the front of its body.
//!
//! Go writes `uid` and `resourceVersion` among the first members of a pod's metadata. The pod that follows may have tens of kilobytes,
//! and where this version of it is known, nothing in them is news.

/// How Go begins a body.
const POD: &[u8] = br#"{"Pod":{"#;
/// How Go begins what says whose pod it is.
const METADATA: &[u8] = br#""metadata":{"#;
/// Members that are looked at: `kind` and `apiVersion`, `name`, `generateName`, `namespace`, `selfLink`, `uid`, `resourceVersion`.
const MEMBERS_MAX: usize = 8;

/// A version of a pod, as a call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodVersion<'a> {
    /// The pod's UID.
    pub uid: &'a str,
    /// Its `resourceVersion`, which says nothing but whether two versions are the same.
    pub resource_version: &'a str,
}

impl<'a> PodVersion<'a> {
    /// Reads the front of a body. `None` where it is written otherwise: that is for a parser.
    ///
    /// A second `uid` or `resourceVersion` further on, which Go would go by, is not seen. Go writes none.
    pub(super) fn of(front: &'a [u8]) -> Option<Self> {
        let mut rest = front.strip_prefix(POD)?;
        let (mut uid, mut resource_version, mut is_inside) = (None, None, false);
        for _ in 0..MEMBERS_MAX {
            if !is_inside && let Some(inside) = rest.strip_prefix(METADATA) {
                (rest, is_inside) = (inside, true);
            }
            let (key, value, after) = member(rest)?;
            rest = after;
            match key {
                "uid" if is_inside => uid = Some(value),
                "resourceVersion" if is_inside => resource_version = Some(value),
                _ => {}
            }
            if let (Some(uid), Some(resource_version)) = (uid, resource_version) {
                return Some(Self { uid, resource_version });
            }
        }
        None
    }
}

/// `"key":"value",` and what follows. `None` for any other value, and for a text with an escape.
fn member(text: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (key, rest) = string(text)?;
    let (value, rest) = string(rest.strip_prefix(b":")?)?;
    Some((key, value, rest.strip_prefix(b",")?))
}

/// A string without escapes, and what follows it.
fn string(text: &[u8]) -> Option<(&str, &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', inner)?;
    let (string, rest) = inner.split_at_checked(end)?;
    Some((std::str::from_utf8(string).ok()?, rest.strip_prefix(b"\"")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(front: &str) -> Option<(&str, &str)> {
        PodVersion::of(front.as_bytes()).map(|version| (version.uid, version.resource_version))
    }

    #[test]
    fn a_pod_as_go_writes_it_tells_its_version() {
        let stored = r#"{"Pod":{"metadata":{"name":"a-1","generateName":"a-","namespace":"ml","uid":"6b1e","resourceVersion":"71","generation":1,"creationTimestamp":"2026-11-21T08:00:00Z"},"spec":{}}"#;
        assert_eq!(version(stored), Some(("6b1e", "71")));
        let typed = stored.replace(r#"{"Pod":{"#, r#"{"Pod":{"kind":"Pod","apiVersion":"v1","#);
        assert_eq!(version(&typed), Some(("6b1e", "71")));
    }

    #[test]
    fn what_is_written_otherwise_tells_none() {
        for front in [
            r#"{"Pod":null,"Nodes":null"#,
            r#"{"Pod":{"metadata":{"#,
            r#"{"Pod":{"metadata":{"name":"a","uid":"u","creationTimestamp":null},"spec":{"uid":"u"}}"#,
            r#"{"Pod":{"metadata":{"name":"a\"b","uid":"u","resourceVersion":"7","labels":{}}}"#,
            r#"{"Pod":{"metadata":{"generation":1,"uid":"u","resourceVersion":"7","labels":{}}}"#,
            r#"{"Pod":{"metadata":{"labels":{"uid":"x","resourceVersion":"8","a":"b"},"uid":"u","resourceVersion":"7","z":{}}}"#,
            r#"{"Pod":{"uid":"x","resourceVersion":"8","metadata":{"uid":"u","labels":{}}}"#,
            r#"{"Pod":{ "metadata":{"uid":"u","resourceVersion":"7","labels":{}}}"#,
            r#"{"Nodes":null,"Pod":{"metadata":{"uid":"u","resourceVersion":"7","labels":{}}}"#,
            r#"{"Pod":{"metadata":{"uid":"u","resourceVersion":"7"#,
            r#"{"Pod":{"metadata":{"uid":"u","resourceVersion":7,"labels":{}}}"#,
            "",
        ] {
            assert_eq!(version(front), None, "{front}");
        }
    }
}
