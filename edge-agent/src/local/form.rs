//! Is this form ours, and does it count for the first time? A form bears an identity and a token that binds it to the
//! browser which opened it. It counts once, within an hour, and its identity becomes that of the record.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use axum::http::{HeaderMap, HeaderValue, header};
use protocol::Micros;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::hex::hex;

/// Most bytes of a form.
pub(super) const FORM_BYTES_MAX: usize = 8 * 1024;
/// Most forms remembered as used; an older one has expired long before.
const USED_MAX: usize = 4_096;
const VALID_US: Micros = 3_600_000_000;
const COOKIE: &str = "foodflow-form";

/// The fields of a form, by name.
pub(super) type Fields = BTreeMap<String, String>;

/// Draws and checks forms' identities.
#[derive(Debug)]
pub(super) struct Forms {
    secret: [u8; 32],
    used: Mutex<VecDeque<Uuid>>,
}

/// A form that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// Not opened here, in another browser, before the agent's last start, or too long ago.
    #[error("this form is no longer valid: open it again and fill it in anew")]
    Invalid,
    /// Sent a second time.
    #[error("this form was already recorded")]
    Used,
}

/// A form that was just opened.
#[derive(Debug)]
pub(super) struct Opened {
    /// Hidden fields.
    pub html: String,
    /// Binds it to the browser.
    pub cookie: HeaderValue,
}

impl Forms {
    /// With a secret of this start.
    pub(super) fn new() -> Self {
        Self {
            secret: rand::random(),
            used: Mutex::default(),
        }
    }

    /// A new form for a browser, which keeps its cookie when it has one.
    pub(super) fn open(&self, headers: &HeaderMap) -> Opened {
        let browser = cookie(headers).unwrap_or_else(rand::random);
        let id = Uuid::now_v7();
        let token = hex(&self.token(browser, id));
        let html = format!(
            "<input type=\"hidden\" name=\"form\" value=\"{id}\"><input type=\"hidden\" name=\"token\" value=\"{token}\">"
        );
        let browser = Uuid::from_bytes(browser).simple();
        let cookie = format!("{COOKIE}={browser}; Path=/; HttpOnly; SameSite=Strict");
        Opened {
            html,
            cookie: HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static("")),
        }
    }

    /// The identity of a form that came back, when it is ours and was not used.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        fields: &Fields,
        now_us: Micros,
    ) -> Result<Uuid, FormError> {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let id = Uuid::try_parse(field("form")).map_err(|_| FormError::Invalid)?;
        let browser = cookie(headers).ok_or(FormError::Invalid)?;
        // Digests of both: how far they agree cannot be told from the time that the comparison takes.
        let expected = Sha256::digest(hex(&self.token(browser, id)));
        if Sha256::digest(field("token")) != expected {
            return Err(FormError::Invalid);
        }
        let (seconds, _) = id.get_timestamp().ok_or(FormError::Invalid)?.to_unix();
        let age_us = now_us - Micros::try_from(seconds).unwrap_or(0) * 1_000_000;
        if !(-VALID_US..=VALID_US).contains(&age_us) {
            return Err(FormError::Invalid);
        }
        if self.used().contains(&id) {
            return Err(FormError::Used);
        }
        Ok(id)
    }

    /// Uses a form up; false when it was.
    pub(super) fn take(&self, id: Uuid) -> bool {
        let mut used = self.used();
        if used.contains(&id) {
            return false;
        }
        if used.len() == USED_MAX {
            used.pop_front();
        }
        used.push_back(id);
        true
    }

    /// Gives a form back that could not be recorded.
    pub(super) fn give_back(&self, id: Uuid) {
        self.used().retain(|used| *used != id);
    }

    fn used(&self) -> std::sync::MutexGuard<'_, VecDeque<Uuid>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All parts have a fixed length, so no two forms share a text.
    fn token(&self, browser: [u8; 16], id: Uuid) -> [u8; 32] {
        let inner = Sha256::new()
            .chain_update(self.secret)
            .chain_update(browser)
            .chain_update(id.as_bytes());
        let outer = Sha256::new()
            .chain_update(self.secret)
            .chain_update(inner.finalize());
        outer.finalize().into()
    }
}

fn cookie(headers: &HeaderMap) -> Option<[u8; 16]> {
    let all = headers.get_all(header::COOKIE).iter();
    let mut pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'));
    let value = pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    Uuid::try_parse(value).ok().map(Uuid::into_bytes)
}

/// A line of text as people type it: trimmed, without control characters, at most so many characters.
pub(super) fn line(fields: &Fields, name: &str, chars_max: usize) -> Result<String, String> {
    let text = fields.get(name).map_or("", |text| text.trim());
    if text.chars().count() > chars_max || text.chars().any(char::is_control) {
        return Err(format!(
            "`{name}` must be at most {chars_max} characters on one line"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn browser() -> HeaderMap {
        let mut headers = HeaderMap::new();
        let cookie = format!("other=1; {COOKIE}={}", Uuid::from_u128(7).simple());
        headers.insert(header::COOKIE, cookie.parse().unwrap());
        headers
    }

    fn fields(opened: &Opened) -> Fields {
        let values = opened.html.split("value=\"").skip(1);
        let values = values.map(|rest| rest.split('"').next().unwrap().to_owned());
        ["form", "token"]
            .map(str::to_owned)
            .into_iter()
            .zip(values)
            .collect()
    }

    #[test]
    fn a_form_counts_once_in_its_browser() {
        let forms = Forms::new();
        let fields = fields(&forms.open(&browser()));
        let id = forms.check(&browser(), &fields, clock::now_us()).unwrap();
        assert!(forms.take(id) && !forms.take(id));
        assert_eq!(
            forms.check(&browser(), &fields, clock::now_us()),
            Err(FormError::Used)
        );
        forms.give_back(id);
        assert_eq!(forms.check(&browser(), &fields, clock::now_us()), Ok(id));
    }

    #[test]
    fn a_form_of_another_browser_start_or_hour_does_not_count() {
        let forms = Forms::new();
        let fields = fields(&forms.open(&browser()));
        let now_us = clock::now_us();
        assert_eq!(
            forms.check(&HeaderMap::new(), &fields, now_us),
            Err(FormError::Invalid)
        );
        let mut other = HeaderMap::new();
        let cookie = format!("{COOKIE}={}", Uuid::from_u128(8).simple());
        other.insert(header::COOKIE, cookie.parse().unwrap());
        assert_eq!(forms.check(&other, &fields, now_us), Err(FormError::Invalid));
        assert_eq!(
            Forms::new().check(&browser(), &fields, now_us),
            Err(FormError::Invalid)
        );
        assert_eq!(
            forms.check(&browser(), &fields, now_us + 2 * VALID_US),
            Err(FormError::Invalid)
        );
        let mut forged = fields.clone();
        forged.insert("form".to_owned(), Uuid::now_v7().to_string());
        assert_eq!(forms.check(&browser(), &forged, now_us), Err(FormError::Invalid));
        assert_eq!(
            forms.check(&browser(), &Fields::new(), now_us),
            Err(FormError::Invalid)
        );
    }
}
