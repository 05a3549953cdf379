//! Is this JSON written the one way in which the chain writes it? Looked at byte by byte instead of written again:
//! numbers would not survive a detour through a float, and a hundred million entries wait.

/// Whether valid JSON has sorted keys, no key twice, no white space and no needless escapes.
pub(super) fn is_canonical(json: &str) -> bool {
    let mut scan = Scan { rest: json };
    scan.value() && scan.rest.is_empty()
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn value(&mut self) -> bool {
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().is_some(),
            _ => self.plain(),
        }
    }

    fn eat(&mut self, sign: char) -> bool {
        self.rest
            .strip_prefix(sign)
            .map(|rest| self.rest = rest)
            .is_some()
    }

    fn object(&mut self) -> bool {
        let mut last: Option<String> = None;
        if !self.eat('{') || self.eat('}') {
            return true;
        }
        loop {
            let Some(key) = self.string().and_then(unescaped) else {
                return false;
            };
            if last.is_some_and(|last| last >= key) || !self.eat(':') || !self.value() {
                return false;
            }
            last = Some(key);
            if self.eat('}') {
                return true;
            }
            if !self.eat(',') {
                return false;
            }
        }
    }

    fn array(&mut self) -> bool {
        if !self.eat('[') || self.eat(']') {
            return true;
        }
        loop {
            if !self.value() {
                return false;
            }
            if self.eat(']') {
                return true;
            }
            if !self.eat(',') {
                return false;
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn plain(&mut self) -> bool {
        let end = self.rest.find([',', ']', '}']).unwrap_or(self.rest.len());
        let (plain, rest) = self.rest.split_at(end);
        self.rest = rest;
        !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The text between the quotes, as written.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.rest.strip_prefix('"')?;
        let mut at = 0;
        loop {
            at += text.get(at..)?.find(['"', '\\'])?;
            if text.as_bytes()[at] == b'"' {
                self.rest = &text[at + 1..];
                return Some(&text[..at]);
            }
            at += escape(&text[at + 1..])?;
        }
    }
}

/// Length of the escape that begins with the backslash before `rest`; `None` for one that is not needed.
fn escape(rest: &str) -> Option<usize> {
    match rest.as_bytes().first()? {
        b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => {
            let code = rest.get(1..5)?;
            let is_lower = !code.bytes().any(|digit| digit.is_ascii_uppercase());
            let control = u32::from_str_radix(code, 16).ok()?;
            (is_lower && control < 0x20 && !matches!(control, 8 | 9 | 10 | 12 | 13)).then_some(6)
        }
        _ => None,
    }
}

fn unescaped(key: &str) -> Option<String> {
    if key.contains('\\') {
        serde_json::from_str(&format!("\"{key}\"")).ok()
    } else {
        Some(key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::kernel::audit::canonical;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}|[\u{0}-\u{1f}\"\\\\/]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[a-z\"\\\\\n\u{1}é]{0,4}", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_chain_writes_is_canonical_and_the_same_with_a_space_is_not(value in any_json()) {
            let text = canonical(&value);
            prop_assert!(is_canonical(&text), "{}", text);
            prop_assert!(!is_canonical(&(text.clone() + " ")));
            prop_assert!(!is_canonical(&["[", &text, ", 1]"].concat()));
        }
    }

    #[test]
    fn another_way_to_write_the_same_is_not_canonical() {
        assert!(is_canonical(&canonical(
            &json!({ "a": [1, "\u{1}\n/é"], "b": {} })
        )));
        for other in [
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a": 1}"#,
            "{\"a\":1\n}",
            r#""\u0041""#,
            r#""\/""#,
            r#""\u000A""#,
            r#""\u001F""#,
            "",
            "{",
            r#"{"a"}"#,
            r#"["a""#,
            "[1]]",
        ] {
            assert!(!is_canonical(other), "{other}");
        }
    }
}
