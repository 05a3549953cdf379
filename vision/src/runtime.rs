//! Where is ONNX Runtime, and is it really one? Nothing else of this crate can be built without a [`Runtime`], because
//! `ort` panics when its first call finds no library.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::load_error::LoadError;

/// Proof that ONNX Runtime is loaded in this process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    environment: ort::environment::Environment,
}

/// The one runtime of this process with the path it came from.
static LOADED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

impl Runtime {
    /// Loads the library at `path`; a second call with the same library returns the same runtime.
    ///
    /// # Errors
    /// [`LoadError::RuntimeMissing`], [`LoadError::RuntimeForeign`], [`LoadError::RuntimeInit`] or, when the process
    /// already runs another library, [`LoadError::RuntimeOther`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let path = path.canonicalize().map_err(|_| LoadError::RuntimeMissing {
            looked_at: vec![path.to_path_buf()],
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((loaded_path, runtime)) = loaded.as_ref() {
            if *loaded_path == path {
                return Ok(runtime.clone());
            }
            return Err(LoadError::RuntimeOther {
                loaded: loaded_path.clone(),
                asked: path,
            });
        }
        let runtime = Self {
            environment: initialise(&path)?,
        };
        *loaded = Some((path, runtime.clone()));
        Ok(runtime)
    }

    /// Returns the library to load: `$FOODFLOW_ONNXRUNTIME` when set, else the newest `libonnxruntime.so*` in the
    /// cache folder that `make onnxruntime` fills, in `/usr/lib` or in `/usr/local/lib`.
    ///
    /// # Errors
    /// [`LoadError::RuntimeMissing`], which lists where it looked and what to do.
    #[allow(
        clippy::disallowed_methods,
        reason = "where the library lies is a property of the machine, not of a config"
    )]
    pub fn find() -> Result<PathBuf, LoadError> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(path) = variable("FOODFLOW_ONNXRUNTIME") {
            return if path.is_file() {
                Ok(path)
            } else {
                Err(LoadError::RuntimeMissing {
                    looked_at: vec![path],
                })
            };
        }
        let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        find_in(&folders(cache))
    }

    /// Returns ONNX Runtime's one environment, for sessions that are built without this crate's engine.
    pub fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }
}

fn initialise(path: &Path) -> Result<ort::environment::Environment, LoadError> {
    let foreign = |source| LoadError::RuntimeForeign {
        path: path.to_path_buf(),
        source,
    };
    let builder = ort::init_from(path).map_err(foreign)?;
    builder
        .with_name("foodflow")
        .with_telemetry(false)
        .build()
        .map_err(|source| LoadError::RuntimeInit {
            path: path.to_path_buf(),
            source,
        })
}

fn folders(cache: Option<PathBuf>) -> Vec<PathBuf> {
    let cached = cache.map(|cache| cache.join("foodflow/onnxruntime"));
    let system = [
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/local/lib",
    ];
    cached.into_iter().chain(system.map(PathBuf::from)).collect()
}

/// Takes the first folder that holds a library; within it the highest version.
fn find_in(folders: &[PathBuf]) -> Result<PathBuf, LoadError> {
    folders
        .iter()
        .find_map(|folder| newest_library(folder))
        .ok_or_else(|| LoadError::RuntimeMissing {
            looked_at: folders.to_vec(),
        })
}

fn newest_library(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = library_version(path.file_name()?.to_str()?)?;
            path.is_file().then_some((version, path))
        })
        .max()
        .map(|(_, path)| path)
}

/// `libonnxruntime.so.1.31.1` → `[1, 31, 1]`; `None` for any other file, such as `libonnxruntime_providers_shared.so`.
fn library_version(name: &str) -> Option<Vec<u32>> {
    let rest = name.strip_prefix("libonnxruntime.so")?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    rest.strip_prefix('.')?
        .split('.')
        .map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_version_wins_and_provider_libraries_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "libonnxruntime.so",
            "libonnxruntime.so.1.9.0",
            "libonnxruntime.so.1.31.1",
            "libonnxruntime_providers_shared.so",
        ] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let found = find_in(&[PathBuf::from("/nowhere"), folder.path().to_path_buf()]).unwrap();
        assert_eq!(found, folder.path().join("libonnxruntime.so.1.31.1"));
    }

    #[test]
    fn missing_library_names_the_places_and_the_remedy() {
        let message = find_in(&folders(Some(PathBuf::from("/nowhere/cache")))).map(drop);
        // A machine may carry a system-wide library; then there is nothing to refuse.
        if let Err(error) = message {
            let text = error.to_string();
            assert!(text.contains("/nowhere/cache/foodflow/onnxruntime"), "{text}");
            assert!(text.contains("make onnxruntime"), "{text}");
        }
    }
}
