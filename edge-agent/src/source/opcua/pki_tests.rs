//! Is the agent the same application tomorrow, and is a server's certificate taken only once a person accepted it?

use super::*;

fn certificate() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["plc".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
    parameters.self_signed(&key).unwrap().der().to_vec()
}

const MARCH_2026_US: Micros = 1_772_366_400_000_000;
const YEAR_US: Micros = 365 * 86_400 * 1_000_000;

#[test]
fn t18_a_certificate_is_refused_until_it_is_trusted_and_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    let (old, new) = (certificate(), certificate());
    let judged = |der: &[u8]| judge(der, pki.trusted("oven").unwrap().as_deref(), MARCH_2026_US);
    assert!(matches!(judged(&old), Err(Refusal::Unknown(_))));
    pki.reject("oven", &old).unwrap();
    assert_eq!(fs::read(directory.path().join("rejected/oven.der")).unwrap(), old);
    pki.trust("oven", &old).unwrap();
    assert!(!directory.path().join("rejected/oven.der").exists());
    assert!(judged(&old).is_ok());
    let Err(Refusal::Changed { shown, trusted }) = judged(&new) else {
        panic!("a changed certificate was taken");
    };
    assert_eq!(
        (shown.fingerprint, trusted),
        (fingerprint(&new), fingerprint(&old))
    );
    assert!(matches!(
        judge(&old, pki.trusted("other").unwrap().as_deref(), MARCH_2026_US),
        Err(Refusal::Unknown(_))
    ));
}

#[test]
fn t18_an_expired_certificate_is_refused_with_its_dates() {
    let der = certificate();
    for now_us in [MARCH_2026_US - YEAR_US, MARCH_2026_US + YEAR_US] {
        let refusal = judge(&der, Some(&der), now_us).unwrap_err();
        let message = refusal.message("oven");
        assert!(message.contains("2026-01-01 to 2027-01-01"), "{message}");
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    for bytes in [&b""[..], b"no certificate", &vec![0x30; 70_000]] {
        assert_eq!(judge(bytes, Some(bytes), 0), Err(Refusal::Malformed));
    }
}

#[test]
fn t20_the_identity_survives_a_restart_and_a_reinstallation() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (directory.path().join("first"), directory.path().join("second"));
    let pki = Pki::open(&first).unwrap();
    pki.ensure_own().unwrap();
    pki.trust("oven", &certificate()).unwrap();
    let own = fs::read(pki.own_certificate()).unwrap();
    let again = Pki::open(&first).unwrap();
    again.ensure_own().unwrap();
    assert_eq!(again.application_uri(), pki.application_uri());
    assert_eq!(fs::read(again.own_certificate()).unwrap(), own);

    let file = directory.path().join("export.json");
    fs::write(&file, pki.export().unwrap()).unwrap();
    let moved = Pki::import(&second, &file).unwrap();
    assert_eq!(moved.application_uri(), pki.application_uri());
    assert_eq!(fs::read(moved.own_certificate()).unwrap(), own);
    assert_eq!(moved.trusted("oven").unwrap(), pki.trusted("oven").unwrap());
    let mode = fs::metadata(moved.own_key()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let certificate = X509::from_der(&own).unwrap();
    assert!(
        certificate
            .is_application_uri_valid(pki.application_uri())
            .is_ok()
    );
    assert!(CertificateStore::read_pkey(&moved.own_key()).is_ok());
}

#[test]
fn half_an_identity_is_an_error_that_names_the_missing_half() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    fs::write(pki.own_certificate(), b"x").unwrap();
    let error = pki.ensure_own().unwrap_err().to_string();
    assert!(error.contains("private.pem"), "{error}");
}

#[test]
fn an_import_writes_nothing_outside_its_directory() {
    assert_eq!(file_name("../../etc/passwd"), "%2e.%2f..%2fetc%2fpasswd");
    assert_eq!(file_name("oven-1"), "oven-1");
    assert_ne!(file_name("a%20b"), file_name("a b"));
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(&directory.path().join("first")).unwrap();
    pki.ensure_own().unwrap();
    let evil = pki
        .export()
        .unwrap()
        .replace("\"trusted\": []", "\"trusted\": [[\"../own/x\", \"00\"]]");
    let file = directory.path().join("export.json");
    fs::write(&file, evil).unwrap();
    let error = Pki::import(&directory.path().join("second"), &file).unwrap_err();
    assert!(error.to_string().contains("no name of a server"), "{error}");
}

#[test]
fn a_relative_directory_is_as_good_as_an_absolute_one() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let name = directory.path().file_name().unwrap();
    let pki = Pki::open(Path::new(name)).unwrap();
    assert!(pki.own_certificate().is_absolute());
}

#[test]
fn a_damaged_identity_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::open(directory.path()).unwrap();
    fs::write(pki.own_certificate(), b"x").unwrap();
    fs::write(pki.own_key(), b"x").unwrap();
    let error = pki.ensure_own().unwrap_err().to_string();
    assert!(error.contains("cert.der"), "{error}");
}
