//! How does a person enter a value? One form: what was measured, when, and the badge and PIN that sign it. It becomes a
//! record and a reading of its tag, which goes the way of every other reading.

use axum::{
    extract::{Form, State, rejection::FormRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use protocol::{Quality, Reading, event::Event};

use super::{
    Book, Local, Refusal,
    badge::{Badge, Pin, Role},
    entry,
    form::{Fields, line},
    html::{answer, escape, page, put, time},
};
use crate::{clock, source::Acquired};

/// The form.
pub(super) async fn show(State(local): State<Local>, headers: HeaderMap) -> Response {
    render(&local, &headers, StatusCode::OK, None, &Fields::new())
}

/// Takes the form.
pub(super) async fn enter(
    State(local): State<Local>,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    let fields = match form {
        Ok(Form(fields)) => fields,
        Err(rejection) => return rejection.into_response(),
    };
    match record(&local, &headers, &fields).await {
        Ok(()) => Redirect::to("/manual").into_response(),
        Err(refusal) => render(&local, &headers, refusal.status, Some(&refusal.message), &fields),
    }
}

async fn record(local: &Local, headers: &HeaderMap, fields: &Fields) -> Result<(), Refusal> {
    let now_us = clock::now_us();
    let forms = &local.shared.forms;
    let Some(id) = local.form(headers, fields, now_us)? else {
        return Ok(());
    };
    let book = local.book();
    let wanted = fields.get("tag").map_or("", String::as_str);
    let plan = book.manual.iter().find(|plan| plan.name == wanted);
    let plan = plan.ok_or_else(|| Refusal::unusable("Choose what you measured from the list."))?;
    let draft = entry::read(plan, fields, now_us).map_err(Refusal::unusable)?;
    let badge = signer(&book, fields, ("badge", "pin"), Role::Operator).await?;
    if !forms.take(id) {
        return Ok(());
    }
    let signed = entry::sign(draft, plan, &badge, id, now_us);
    let readings = vec![Reading::new(
        plan.alias,
        signed.measured_us,
        signed.value,
        Quality::GOOD,
    )];
    let messages = vec![
        Acquired::Record(Box::new(Event::ManualEntry(signed.clone()))),
        Acquired::Readings {
            readings: readings.clone(),
            received_us: now_us,
        },
    ];
    if let Err(refusal) = local.hand_over(messages).await {
        forms.give_back(id);
        return Err(refusal);
    }
    if let Some(people) = local.health().people() {
        people.count(&readings, now_us);
    }
    tracing::info!(tag = %signed.tag, badge = %signed.badge, id = %signed.id, "value entered by hand");
    local.remember(signed);
    Ok(())
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

fn render(
    local: &Local,
    headers: &HeaderMap,
    status: StatusCode,
    refusal: Option<&str>,
    fields: &Fields,
) -> Response {
    let book = local.book();
    let opened = local.shared.forms.open(headers);
    let mut body = "<h2>Enter a value</h2>".to_owned();
    if let Some(refusal) = refusal {
        put(
            &mut body,
            format_args!("<p class=\"bad\">{}</p>", escape(refusal)),
        );
    }
    if book.manual.is_empty() {
        body.push_str(
            "<p class=\"warn\">Nothing is to be entered by hand: the configuration has no [[manual]].</p>",
        );
    } else if book.badges.is_empty() {
        body.push_str("<p class=\"warn\">Nobody can sign: the configuration has no [[badge]].</p>");
    } else {
        inputs(&book, fields, &opened.html, &mut body);
    }
    recorded(local, &mut body);
    let mut response = answer(status, page(&local.health().edge, false, &body));
    response.headers_mut().insert(header::SET_COOKIE, opened.cookie);
    response
}

fn inputs(book: &Book, fields: &Fields, hidden: &str, out: &mut String) {
    let typed = |name: &str| escape(fields.get(name).map_or("", String::as_str));
    put(
        out,
        format_args!("<form method=\"post\" action=\"/manual\">{hidden}<label>Measured<select name=\"tag\">"),
    );
    for plan in &book.manual {
        let selected = if fields.get("tag") == Some(&plan.name) {
            " selected"
        } else {
            ""
        };
        put(
            out,
            format_args!(
                "<option value=\"{name}\"{selected}>{name} {description} ({range})</option>",
                name = escape(&plan.name),
                description = escape(&plan.description),
                range = escape(&entry::range(plan)),
            ),
        );
    }
    let confirmed = if fields.contains_key("confirmed") {
        " checked"
    } else {
        ""
    };
    put(
        out,
        format_args!(
            "</select></label><label>Value<input name=\"value\" value=\"{}\" inputmode=\"decimal\" maxlength=\"40\" \
             autocomplete=\"off\"></label><label>Minutes since it was measured<input name=\"ago\" value=\"{}\" \
             inputmode=\"numeric\" maxlength=\"5\" placeholder=\"0\"></label><label>Note<input name=\"note\" value=\"{}\" \
             maxlength=\"500\"></label><label><input type=\"checkbox\" name=\"confirmed\"{confirmed}> The value is right, \
             though it is unlikely</label>",
            typed("value"),
            typed("ago"),
            typed("note"),
        ),
    );
    signature(out, fields, ("badge", "pin"), "Your");
    out.push_str("<button>Sign: I performed this measurement</button></form>");
}

fn recorded(local: &Local, out: &mut String) {
    let entries = local.recorded();
    if entries.is_empty() {
        return;
    }
    out.push_str("<h2>Recorded since the start</h2><table><tr><th>Entered</th><th>Measured</th><th>Tag</th><th>Value</th>\
        <th>By</th><th>Note</th></tr>");
    for entry in entries {
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
                time(entry.at_us),
                time(entry.measured_us),
                escape(&entry.tag),
                entry.value,
                escape(&entry.name),
                escape(&entry.note),
            ),
        );
    }
    out.push_str("</table>");
}
