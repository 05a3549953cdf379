//! Is a program fetched whole and as signed, through cut connections and onto disks that are full or refuse?

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::*;

/// Serves a program and cuts the connection after so many bytes of each answer.
#[derive(Clone)]
struct Served {
    program: Arc<Vec<u8>>,
    cut_after: Option<usize>,
    knows_ranges: bool,
    asked: Arc<Mutex<Vec<Option<String>>>>,
}

async fn answer(State(served): State<Served>, headers: HeaderMap) -> Response<Body> {
    let range = headers
        .get("range")
        .map(|range| range.to_str().unwrap().to_owned());
    served.asked.lock().unwrap().push(range.clone());
    let from: usize = range.filter(|_| served.knows_ranges).map_or(0, |range| {
        range["bytes=".len()..].trim_end_matches('-').parse().unwrap()
    });
    let mut bytes = served.program[from..].to_vec();
    bytes.truncate(served.cut_after.unwrap_or(usize::MAX));
    let mut response = Response::builder();
    if from > 0 {
        let end = served.program.len();
        response = response
            .status(206)
            .header("content-range", format!("bytes {from}-{}/{end}", end - 1));
    }
    response.body(Body::from(bytes)).unwrap()
}

async fn serve(program: &[u8], cut_after: Option<usize>, knows_ranges: bool) -> (Served, Manifest) {
    let served = Served {
        program: Arc::new(program.to_vec()),
        cut_after,
        knows_ranges,
        asked: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/program", listener.local_addr().unwrap());
    let manifest = Manifest {
        version: "9.0.0".parse().unwrap(),
        target: String::new(),
        sha256: hex::sha256_hex(program),
        size: program.len() as u64,
        url: Some(url),
        min_version: None,
        released: String::new(),
    };
    let app = Router::new()
        .route("/program", get(answer))
        .with_state(served.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (served, manifest)
}

fn place(manifest: &Manifest) -> Place {
    Place {
        url: manifest.url.clone().unwrap(),
        identity: None,
    }
}

#[tokio::test]
async fn t32_a_download_that_is_cut_goes_on_where_it_was_and_ends_as_signed() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("9.0.0").join("foodflow-edge");
    let (served, manifest) = serve(&vec![7; 25_000], Some(10_000), true).await;
    fetch(&manifest, &place(&manifest), &program, None).await.unwrap();
    assert!(!program.exists(), "not a program before its hash was looked at");
    finish(&program, &manifest).unwrap();
    assert_eq!(fs::read(&program).unwrap(), vec![7; 25_000]);
    assert_eq!(
        fs::metadata(&program).unwrap().permissions().mode() & 0o111,
        0o111
    );
    let asked = served.asked.lock().unwrap().clone();
    let wanted = [None, Some("bytes=10000-"), Some("bytes=20000-")];
    assert_eq!(asked, wanted.map(|range| range.map(str::to_owned)));
    // Once it is there it is not fetched again.
    fetch(&manifest, &place(&manifest), &program, None).await.unwrap();
    assert_eq!(served.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_is_read_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("foodflow-edge");
    let (_served, manifest) = serve(&[7; 5_000], None, false).await;
    fs::write(part_path(&program), [1; 3_000]).unwrap();
    fetch(&manifest, &place(&manifest), &program, None).await.unwrap();
    finish(&program, &manifest).unwrap();
}

#[tokio::test]
async fn what_is_longer_than_signed_or_other_than_signed_never_becomes_a_program() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("foodflow-edge");
    let (_served, mut manifest) = serve(&[7; 5_000], None, true).await;
    manifest.size = 4_000;
    let error = fetch(&manifest, &place(&manifest), &program, None)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Wrong(_)), "{error}");
    assert!(!part_path(&program).exists());
    (manifest.size, manifest.sha256) = (5_000, "00".repeat(32));
    fetch(&manifest, &place(&manifest), &program, None).await.unwrap();
    let error = finish(&program, &manifest).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(!program.exists() && !part_path(&program).exists());
}

#[test]
fn t32_a_full_disk_is_noticed_before_the_download_and_the_spools_room_is_kept() {
    assert!(has_room(RESERVE_BYTES + 100, 100).is_ok());
    let error = has_room(RESERVE_BYTES + 99, 100).unwrap_err();
    assert!(matches!(
        error,
        DownloadError::NoRoom {
            needed: 100,
            free: 99
        }
    ));
    assert!(has_room(0, 1).is_err());
}

#[tokio::test]
async fn t32_a_disk_that_refuses_ends_the_download_with_the_files_name() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("9.0.0");
    fs::write(&blocked, "a file where a directory should be").unwrap();
    let (_served, manifest) = serve(&[7; 100], None, true).await;
    let error = fetch(&manifest, &place(&manifest), &blocked.join("foodflow-edge"), None)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, DownloadError::Disk { path, .. } if *path == blocked),
        "{error}"
    );
}
