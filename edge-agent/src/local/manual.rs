//! How does a person enter a value? One form: what was measured, when, and the badge and PIN that sign it. It becomes a
//! record and a reading of its tag, which goes the way of every other reading.

use protocol::{
    Micros, Quality, Reading,
    event::{Event, ManualEntry},
};
use uuid::Uuid;

use super::{
    Book, Local, Refusal,
    badge::Role,
    entry,
    form::Fields,
    html::{escape, put, time},
    signed::{NO_BADGE, SignedForm, signature, signer},
};
use crate::source::Acquired;

/// Enters one value.
pub(super) struct ManualForm;

impl SignedForm for ManualForm {
    const PATH: &'static str = "/manual";
    const HEADING: &'static str = "Enter a value";
    type Record = (ManualEntry, Reading);

    async fn read(
        local: &Local,
        fields: &Fields,
        id: Uuid,
        now_us: Micros,
    ) -> Result<(Self::Record, Vec<Acquired>), Refusal> {
        let book = local.book();
        let wanted = fields.get("tag").map_or("", String::as_str);
        let plan = book.manual.iter().find(|plan| plan.name == wanted);
        let plan = plan.ok_or_else(|| Refusal::unusable("Choose what you measured from the list."))?;
        let draft = entry::read(plan, fields, now_us).map_err(Refusal::unusable)?;
        let badge = signer(&book, fields, ("badge", "pin"), Role::Operator).await?;
        let signed = entry::sign(draft, plan, &badge, id, now_us);
        let reading = Reading::new(plan.alias, signed.measured_us, signed.value, Quality::GOOD);
        let messages = vec![
            Acquired::Record(Box::new(Event::ManualEntry(signed.clone()))),
            Acquired::Readings {
                readings: vec![reading],
                received_us: now_us,
            },
        ];
        Ok(((signed, reading), messages))
    }

    fn recorded(local: &Local, (signed, reading): Self::Record, now_us: Micros) {
        if let Some(people) = local.health().people() {
            people.count(&[reading], now_us);
        }
        tracing::info!(tag = %signed.tag, badge = %signed.badge, id = %signed.id, "value entered by hand");
        local.remember(signed);
    }

    fn render(local: &Local, fields: &Fields, hidden: &str, out: &mut String) {
        let book = local.book();
        if book.manual.is_empty() {
            out.push_str(
                "<p class=\"warn\">Nothing is to be entered by hand: the configuration has no [[manual]].</p>",
            );
        } else if book.badges.is_empty() {
            out.push_str(NO_BADGE);
        } else {
            inputs(&book, fields, hidden, out);
        }
        recorded(local, out);
    }
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
