//! What is alike in the forms that people sign at the line? Each is shown with an identity that counts once, and what
//! comes back is recorded once, or refused with the reason and everything that was typed but the PIN.

use axum::{
    extract::{Form, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
    routing::{MethodRouter, get},
};
use protocol::Micros;
use uuid::Uuid;

use super::{
    Book, Local, Refusal,
    badge::{Badge, Pin, Role},
    form::{Fields, line},
    html::{answer, escape, page, put},
};
use crate::{clock, source::Acquired};

/// A page with a form to sign.
pub(super) trait SignedForm: 'static {
    /// Where it is.
    const PATH: &'static str;
    /// What it is about, as HTML.
    const HEADING: &'static str;
    /// What is recorded of it.
    type Record: Send;

    /// Checks fields and signatures; the record that they make, under the form's identity, and the messages that
    /// carry it.
    ///
    /// # Errors
    /// What is wrong with the form.
    fn read(
        local: &Local,
        fields: &Fields,
        id: Uuid,
        now_us: Micros,
    ) -> impl Future<Output = Result<(Self::Record, Vec<Acquired>), Refusal>> + Send;

    /// The messages were taken: nothing else gets to know of the record.
    fn recorded(local: &Local, record: Self::Record, now_us: Micros);

    /// What stands below the heading; `hidden` are the fields that identify the form.
    fn render(local: &Local, fields: &Fields, hidden: &str, out: &mut String);
}

/// The route of a form.
pub(super) fn route<F: SignedForm>() -> MethodRouter<Local> {
    get(show::<F>).post(take::<F>)
}

pub(super) async fn show<F: SignedForm>(State(local): State<Local>, headers: HeaderMap) -> Response {
    render::<F>(&local, &headers, StatusCode::OK, None, &Fields::new())
}

pub(super) async fn take<F: SignedForm>(
    State(local): State<Local>,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let fields = match form {
        Ok(Form(fields)) => fields,
        Err(rejection) => return rejection.into_response(),
    };
    match record::<F>(&local, &headers, &fields).await {
        Ok(()) => Redirect::to(F::PATH).into_response(),
        Err(refusal) => render::<F>(&local, &headers, refusal.status, Some(&refusal.message), &fields),
    }
}

async fn record<F: SignedForm>(local: &Local, headers: &HeaderMap, fields: &Fields) -> Result<(), Refusal> {
    let now_us = clock::now_us();
    let forms = &local.shared.forms;
    let Some(id) = local.form(headers, fields, now_us)? else {
        return Ok(());
    };
    let (record, messages) = F::read(local, fields, id, now_us).await?;
    if !forms.take(id) {
        return Ok(());
    }
    if let Err(refusal) = local.hand_over(messages).await {
        forms.give_back(id);
        return Err(refusal);
    }
    F::recorded(local, record, now_us);
    Ok(())
}

fn render<F: SignedForm>(
    local: &Local,
    headers: &HeaderMap,
    status: StatusCode,
    refusal: Option<&str>,
    fields: &Fields,
) -> Response {
    let opened = local.shared.forms.open(headers);
    let mut body = format!("<h2>{}</h2>", F::HEADING);
    if let Some(refusal) = refusal {
        put(
            &mut body,
            format_args!("<p class=\"bad\">{}</p>", escape(refusal)),
        );
    }
    F::render(local, fields, &opened.html, &mut body);
    let mut response = answer(status, page(&local.health().edge, false, &body));
    response.headers_mut().insert(header::SET_COOKIE, opened.cookie);
    response
}

/// The person whose badge and PIN stand in these fields.
pub(super) async fn signer(
    book: &Book,
    fields: &Fields,
    (badge, pin): (&'static str, &'static str),
    role: Role,
) -> Result<Badge, Refusal> {
    let id = line(fields, badge, 64).map_err(Refusal::unusable)?;
    let pin = fields.get(pin).map_or("", String::as_str);
    let pin = Pin::new(pin).map_err(|error| Refusal::unusable(format!("Not recorded: {error}.")))?;
    Ok(book.badges.check(&id, pin, role, clock::now_us()).await?)
}

/// The fields of one signature.
pub(super) fn signature(out: &mut String, fields: &Fields, (badge, pin): (&str, &str), whose: &str) {
    let id = escape(fields.get(badge).map_or("", String::as_str));
    put(
        out,
        format_args!(
            "<label>{whose} badge<input name=\"{badge}\" value=\"{id}\" maxlength=\"64\" autocomplete=\"off\"></label>\
             <label>{whose} PIN<input name=\"{pin}\" type=\"password\" inputmode=\"numeric\" maxlength=\"64\" \
             autocomplete=\"off\"></label>"
        ),
    );
}

/// That nobody can sign, as HTML.
pub(super) const NO_BADGE: &str =
    "<p class=\"warn\">Nobody can sign: the configuration has no [[badge]].</p>";
