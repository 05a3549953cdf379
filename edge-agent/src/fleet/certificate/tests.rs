//! Does a key stay with its owner, and does every stop and every answer leave a pair that fits?

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer};

use super::*;
use crate::durable::cuts;

const NAME: &str = "akron/akron-1";
const DAY_US: Micros = 86_400_000_000;
/// 2026-01-01.
const START_US: Micros = 1_767_225_600_000_000;

/// Signs requests as a hub would: valid from 2026-01-01 for 90 days.
fn sign(csr_pem: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::from_params(&authority, &key);
    let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
    request.params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    request.params.not_after = rcgen::date_time_ymd(2026, 4, 1);
    request.signed_by(&issuer).unwrap().pem()
}

#[test]
fn a_key_never_leaves_its_file_and_only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let csr = request(directory.path(), NAME).unwrap();
    assert!(!csr.contains("PRIVATE"));
    let path = next_key_path(directory.path());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let certificate = install(directory.path(), &sign(&csr), NAME, START_US).unwrap();
    let mode = fs::metadata(client_path(directory.path()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!path.exists(), "the key moved to its certificate");
    assert!(!format!("{certificate:?}").contains("PRIVATE"));
    assert_eq!(load(directory.path()).unwrap(), Some(certificate));
}

#[test]
fn t11_a_power_cut_at_any_step_of_an_installation_leaves_a_pair_that_fits() {
    let directory = tempfile::tempdir().unwrap();
    let old = {
        let csr = request(directory.path(), NAME).unwrap();
        install(directory.path(), &sign(&csr), NAME, START_US).unwrap()
    };
    let csr = request(directory.path(), NAME).unwrap();
    let next_key = fs::read_to_string(next_key_path(directory.path())).unwrap();
    let chain = sign(&csr);
    let mut found = Vec::new();
    for cut in cuts(&install_steps(directory.path(), &next_key, &chain)) {
        fs::write(client_path(directory.path()), &old.pem).unwrap();
        fs::write(next_key_path(directory.path()), &next_key).unwrap();
        durable::perform(&cut).unwrap();
        let now = load(directory.path()).unwrap().unwrap();
        let public = leaf(&now.pem).unwrap();
        assert!(key_of(directory.path(), &public).is_ok(), "{cut:?}");
        found.push(now.pem == old.pem);
        // What was cut short is taken up again by the same answer.
        install(directory.path(), &chain, NAME, START_US).unwrap();
    }
    assert!(found.contains(&true) && found.contains(&false));
}

#[test]
fn an_answer_that_fits_no_key_of_this_edge_names_somebody_else_or_is_too_late_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let csr = request(directory.path(), NAME).unwrap();
    let chain = sign(&csr);
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = sign(&request(elsewhere.path(), NAME).unwrap());
    let refused =
        |chain: &str, name: &str, now_us| install(directory.path(), chain, name, now_us).unwrap_err();
    assert!(matches!(
        refused(&foreign, NAME, START_US),
        CertificateError::OtherKey
    ));
    assert!(matches!(
        refused(&chain, "akron/akron-2", START_US),
        CertificateError::OtherName { .. }
    ));
    assert!(matches!(
        refused(&chain, NAME, START_US + 91 * DAY_US),
        CertificateError::Expired(_)
    ));
    for garbage in [
        String::new(),
        "x".repeat(CHAIN_BYTES_MAX + 1),
        chain[..200].to_owned(),
    ] {
        assert!(matches!(
            refused(&garbage, NAME, START_US),
            CertificateError::Malformed(_)
        ));
    }
    assert_eq!(load(directory.path()).unwrap(), None);
    // A request that was made twice is made with one key, so either answer fits.
    let again = sign(&request(directory.path(), NAME).unwrap());
    install(directory.path(), &again, NAME, START_US).unwrap();
    install(directory.path(), &chain, NAME, START_US).unwrap();
}

#[test]
fn t11_renewal_is_asked_for_after_two_thirds_of_the_life_while_connected_and_again_when_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let csr = request(directory.path(), NAME).unwrap();
    let certificate = install(directory.path(), &sign(&csr), NAME, START_US).unwrap();
    let mut renewal = Renewal::default();
    let due_us = START_US + 60 * DAY_US;
    assert!(!renewal.is_due(Some(&certificate), true, due_us - 1));
    assert!(
        !renewal.is_due(Some(&certificate), false, due_us),
        "nobody would answer"
    );
    assert!(renewal.is_due(Some(&certificate), true, due_us));
    assert!(!renewal.is_due(Some(&certificate), true, due_us + ASK_AGAIN_US - 1));
    assert!(renewal.is_due(Some(&certificate), true, due_us + ASK_AGAIN_US));
    // Thirty days offline and expired: asked for at once on return.
    let back_us = START_US + 120 * DAY_US;
    assert!(!certificate.is_valid(back_us));
    assert!(renewal.is_due(Some(&certificate), true, back_us));
    renewal.answered();
    assert!(renewal.is_due(Some(&certificate), true, back_us));
    // An edge that was enrolled before its hub signed certificates asks for its first.
    assert!(Renewal::default().is_due(None, true, back_us));
}
