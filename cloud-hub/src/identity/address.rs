//! Is this an e-mail address? What a person typed, as an account is found by it.

/// Longest address that mail can carry (RFC 5321, 4.5.3.1.3).
const BYTES_MAX: usize = 254;

/// An address in lower case: a name, an @ and a domain, without spaces or control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Reads what was typed; spaces around it and its case do not matter. `None` for what no account can have.
    pub fn parse(typed: &str) -> Option<Self> {
        let address = typed.trim().to_lowercase();
        let (name, domain) = address.split_once('@')?;
        let is_clean = |c: char| !c.is_whitespace() && !c.is_control();
        let is_address = !name.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && address.len() <= BYTES_MAX
            && address.chars().all(is_clean);
        is_address.then_some(Self(address))
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the @.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_name_an_at_and_a_domain() {
        let address = Address::parse(" Jo.Doe@Akron.Example ").unwrap();
        assert_eq!(
            (address.as_str(), address.domain()),
            ("jo.doe@akron.example", "akron.example")
        );
        for wrong in [
            "",
            "jo",
            "@x",
            "jo@",
            "a@b@c",
            "a b@c",
            "a@b\u{0}",
            "a\n@b",
            "a\u{a0}@b",
        ] {
            assert_eq!(Address::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Address::parse(&format!("{}@b", "a".repeat(253))), None);
    }
}
