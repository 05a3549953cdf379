//! Do the forms record what a person signed, once, and nothing else?

use axum::extract::Form;
use protocol::{
    alarm::{AlarmAction, AlarmVerb},
    event::Event,
    reading::Alias,
};

use super::{
    badge::{Role, tests::badge},
    *,
};
use crate::{health::SourceHealth, pipeline};

fn local(room: usize) -> (Local, mpsc::Receiver<Acquired>) {
    let people = SourceHealth::new("manual", "local page");
    let health = Arc::new(Health::new("akron-1", Uuid::nil(), 0));
    health.set_sources(&[people]);
    for (code, subject) in [("ccp.diverted", "CCP-1"), ("source.down", "plc<1>")] {
        health.note_alarm(&pipeline::alarm(code, subject, "out", 1));
    }
    let plan = ManualPlan {
        alias: Alias(7),
        name: "TT-403.HAND".to_owned(),
        line: None,
        unit: "degC".to_owned(),
        description: "Salad <core>".to_owned(),
        low: Some(-5.0),
        high: Some(30.0),
        every_us: None,
        grace_us: 0,
        gate: None,
    };
    let book = Book {
        manual: vec![plan],
        badges: Badges::new(vec![
            badge("b1", Role::Operator, "1234"),
            badge("b2", Role::Supervisor, "5678"),
        ]),
    };
    let (tx, rx) = mpsc::channel(room);
    (Local::new(health, tx, book), rx)
}

async fn text(response: Response) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A form as it was opened: its hidden fields, and the browser's cookie.
async fn opened(response: Response) -> (Fields, HeaderMap) {
    let cookie = response.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .to_owned();
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, cookie.split(';').next().unwrap().parse().unwrap());
    let html = text(response).await;
    let value = |name: &str| {
        let (_, rest) = html.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let names = ["form", "token"];
    (names.map(|name| (name.to_owned(), value(name))).into(), headers)
}

async fn entry_form(local: &Local, pairs: &[(&str, &str)]) -> (Fields, HeaderMap) {
    let (mut fields, headers) =
        opened(signed::show::<ManualForm>(State(local.clone()), HeaderMap::new()).await).await;
    let typed = [
        ("tag", "TT-403.HAND"),
        ("value", "3.4"),
        ("badge", "b1"),
        ("pin", "1234"),
    ];
    for (name, value) in typed.iter().chain(pairs) {
        fields.insert((*name).to_owned(), (*value).to_owned());
    }
    (fields, headers)
}

async fn enter(local: &Local, (fields, headers): &(Fields, HeaderMap)) -> Response {
    signed::take::<ManualForm>(State(local.clone()), headers.clone(), Ok(Form(fields.clone()))).await
}

async fn act(local: &Local, pairs: &[(&str, &str)]) -> Response {
    let (mut fields, headers) =
        opened(signed::show::<AlarmForm>(State(local.clone()), HeaderMap::new()).await).await;
    for (name, value) in pairs {
        let alarm = local
            .health()
            .alarms()
            .into_iter()
            .find(|alarm| alarm.code == *value);
        let value = alarm.map_or_else(|| (*value).to_owned(), |alarm| alarm.id.to_string());
        fields.insert((*name).to_owned(), value);
    }
    signed::take::<AlarmForm>(State(local.clone()), headers, Ok(Form(fields))).await
}

#[tokio::test]
async fn a_signed_value_becomes_a_record_and_a_reading_however_often_it_is_sent() {
    let (local, mut acquired) = local(8);
    let form = entry_form(&local, &[("note", "bin 2")]).await;
    for _ in 0..2 {
        assert_eq!(enter(&local, &form).await.status(), StatusCode::SEE_OTHER);
    }
    let Acquired::Record(event) = acquired.try_recv().unwrap() else {
        panic!("no record");
    };
    let Event::ManualEntry(entry) = *event else {
        panic!("no entry");
    };
    assert_eq!((entry.name.as_str(), entry.note.as_str()), ("Person b1", "bin 2"));
    assert_eq!(entry.id.to_string(), form.0["form"]);
    let Acquired::Readings { readings, .. } = acquired.try_recv().unwrap() else {
        panic!("no reading");
    };
    assert_eq!((readings[0].tag, readings[0].value()), (Alias(7), Some(3.4)));
    assert_eq!(readings[0].time_us, entry.measured_us);
    assert!(acquired.try_recv().is_err());
    assert_eq!(local.health().acquired(), 1);
    let page = text(signed::show::<ManualForm>(State(local), HeaderMap::new()).await).await;
    assert!(page.contains("Person b1") && page.contains("Salad &lt;core&gt;"));
}

#[tokio::test]
async fn a_wrong_pin_records_nothing_and_keeps_what_was_typed_but_the_pin() {
    let (local, mut acquired) = local(8);
    let form = entry_form(&local, &[("pin", "9999"), ("note", "bin 2")]).await;
    let response = enter(&local, &form).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let page = text(response).await;
    assert!(page.contains("4 more wrong tries") && page.contains("bin 2") && !page.contains("9999"));
    for _ in 0..4 {
        enter(&local, &form).await;
    }
    let right = entry_form(&local, &[]).await;
    assert_eq!(
        enter(&local, &right).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    assert!(acquired.try_recv().is_err());
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_said_with_the_remedy() {
    let (local, mut acquired) = local(8);
    for (name, value, wanted) in [
        ("value", "3,4", "with a point"),
        ("value", "85", "tick"),
        ("tag", "TT-1", "from the list"),
        ("pin", "1", "A PIN has"),
        ("pin", "", "A PIN has"),
    ] {
        let form = entry_form(&local, &[(name, value)]).await;
        let response = enter(&local, &form).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{value}");
        let page = text(response).await;
        let page = page.to_lowercase();
        assert!(page.contains(&wanted.to_lowercase()), "{value}: {page}");
    }
    assert!(acquired.try_recv().is_err());
}

#[tokio::test]
async fn a_form_of_another_site_records_nothing() {
    let (local, mut acquired) = local(8);
    let (mut fields, headers) = entry_form(&local, &[]).await;
    let without_cookie = (fields.clone(), HeaderMap::new());
    assert_eq!(
        enter(&local, &without_cookie).await.status(),
        StatusCode::FORBIDDEN
    );
    fields.insert("token".to_owned(), "0".repeat(64));
    assert_eq!(
        enter(&local, &(fields, headers)).await.status(),
        StatusCode::FORBIDDEN
    );
    assert!(acquired.try_recv().is_err());
}

#[tokio::test]
async fn a_pipeline_that_takes_nothing_is_said_and_the_form_counts_later() {
    let (local, acquired) = local(1);
    let form = entry_form(&local, &[]).await;
    for _ in 0..2 {
        let response = enter(&local, &form).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    drop(acquired);
    assert_eq!(local.recorded(), []);
}

#[tokio::test]
async fn pages_run_no_scripts_and_are_framed_and_kept_by_nobody() {
    let (local, _acquired) = local(8);
    for response in [
        page(State(local.clone())).await,
        signed::show::<ManualForm>(State(local.clone()), HeaderMap::new()).await,
        signed::show::<AlarmForm>(State(local), HeaderMap::new()).await,
    ] {
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let html = text(response).await;
        assert!(!html.contains("<script") && !html.contains("plc<1>"));
    }
}

fn action(acquired: &mut mpsc::Receiver<Acquired>) -> Option<AlarmAction> {
    match acquired.try_recv().ok()? {
        Acquired::AlarmAction(action) => Some(*action),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operator_acknowledges_and_a_supervisor_shelves() {
    let (local, mut acquired) = local(8);
    let operator = [("badge", "b1"), ("pin", "1234"), ("alarm", "source.down")];
    let response = act(&local, &[&operator[..], &[("verb", "acknowledge")]].concat()).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let done = action(&mut acquired).unwrap();
    assert_eq!((done.by.as_str(), done.verb), ("b1", AlarmVerb::Acknowledge));
    assert_eq!(
        (done.code.as_str(), done.subject.as_str()),
        ("source.down", "plc<1>")
    );
    let shelve = [("verb", "shelve"), ("minutes", "30"), ("reason", "known")];
    let response = act(&local, &[&operator[..], &shelve].concat()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let supervisor = [("badge", "b2"), ("pin", "5678"), ("alarm", "source.down")];
    let response = act(&local, &[&supervisor[..], &shelve].concat()).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert!(matches!(
        action(&mut acquired).unwrap().verb,
        AlarmVerb::Shelve { .. }
    ));
}

#[tokio::test]
async fn t26_a_critical_alarm_is_shelved_by_two_people_and_for_a_reason() {
    let (local, mut acquired) = local(8);
    let shelve = [
        ("badge", "b2"),
        ("pin", "5678"),
        ("alarm", "ccp.diverted"),
        ("verb", "shelve"),
        ("minutes", "30"),
    ];
    for (more, status) in [
        (vec![], StatusCode::UNPROCESSABLE_ENTITY),
        (vec![("reason", "CIP")], StatusCode::UNPROCESSABLE_ENTITY),
        (
            vec![("reason", "CIP"), ("badge2", "b2"), ("pin2", "5678")],
            StatusCode::FORBIDDEN,
        ),
        (
            vec![("reason", "CIP"), ("badge2", "b1"), ("pin2", "0000")],
            StatusCode::FORBIDDEN,
        ),
    ] {
        let response = act(&local, &[&shelve[..], &more].concat()).await;
        assert_eq!(response.status(), status, "{more:?}");
        assert!(action(&mut acquired).is_none());
    }
    let second = [("reason", "CIP"), ("badge2", "b1"), ("pin2", "1234")];
    let response = act(&local, &[&shelve[..], &second].concat()).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let done = action(&mut acquired).unwrap();
    assert_eq!((done.by.as_str(), done.second.as_deref()), ("b2", Some("b1")));
}
