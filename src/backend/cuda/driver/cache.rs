//! Compiled kernels on disk, so that a program's next run need not compile them again.
//!
//! What is loaded from here is executed, so it has to be what was put here: the folder belongs to this user and
//! nobody else can enter it, and a file is used only if its seal says that it is whole and is the answer to this
//! question. Where any of that fails the kernel is compiled, as if there were no cache.

use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a device keeps compiled kernels between runs of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cache {
    /// `$XDG_CACHE_HOME/normkit`, or `~/.cache/normkit`.
    #[default]
    Default,
    /// This folder. It is made if it is not there, for this user alone; one that others can enter is not used.
    Folder(PathBuf),
    /// Nowhere.
    Off,
}

/// The digest of everything that a compiled kernel depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// `parts` are told apart, so that no two lists of them are the same question.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Key(digest.finalize().into())
    }

    fn name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How a seal begins; the last character changes with the form of what follows.
const MAGIC: &[u8; 8] = b"normkit1";

/// Magic, length of what is sealed, key, checksum.
const SEAL: usize = 8 + 8 + 32 + 32;

/// What stands behind a file's content. It is at the end because shared objects, too, are loaded as they lie here,
/// and a loader reads them from their first byte and ignores what follows.
fn seal(key: &Key, content: &[u8]) -> [u8; SEAL] {
    let mut seal = [0; SEAL];
    seal[..8].copy_from_slice(MAGIC);
    seal[8..16].copy_from_slice(&(content.len() as u64).to_le_bytes());
    seal[16..48].copy_from_slice(&key.0);
    seal[48..].copy_from_slice(&Sha256::digest(content));
    seal
}

/// A folder of compiled kernels, or none.
#[derive(Debug)]
pub(in crate::backend::cuda) struct Disk {
    folder: Option<PathBuf>,
}

/// Tells temporary files of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

impl Disk {
    /// The folder that `cache` names, if it can be used.
    pub(super) fn open(cache: &Cache) -> Self {
        let folder = match cache {
            Cache::Off => None,
            Cache::Folder(folder) => Some(folder.clone()),
            Cache::Default => default_folder(&|name| std::env::var_os(name).map(PathBuf::from)),
        };
        let folder = folder.and_then(|folder| match prepare(&folder) {
            Ok(()) => Some(folder),
            Err(reason) => {
                tracing::warn!(folder = %folder.display(), %reason, "kernels are not kept on disk");
                None
            }
        });
        Disk { folder }
    }

    fn path(&self, key: &Key, extension: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(key.name()).with_extension(extension))
    }

    /// The file for `key` and what it holds, if it is there, whole and its own.
    pub(super) fn get(&self, key: &Key, extension: &str) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.path(key, extension)?;
        let mut content = std::fs::read(&path).ok()?;
        let len = content.len().checked_sub(SEAL)?;
        let found = content.split_off(len);
        if found != seal(key, &content) {
            tracing::warn!(file = %path.display(), "a damaged or foreign file in the cache; compiling again");
            return None;
        }
        Some((path, content))
    }

    /// Keeps `content` for `key`; the file, if that worked. It appears whole or not at all.
    pub(super) fn put(&self, key: &Key, extension: &str, content: &[u8]) -> Option<PathBuf> {
        let path = self.path(key, extension)?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let written = write_new(&temporary, &[content, &seal(key, content)])
            .and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(reason) = written {
            tracing::warn!(file = %path.display(), %reason, "a kernel could not be kept on disk");
            // Not there, or of no use: either way there is nothing else to do about it.
            let _ = std::fs::remove_file(&temporary);
            return None;
        }
        Some(path)
    }
}

/// The folder for caches, by the XDG rules: relative paths do not count.
fn default_folder(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("normkit"))
}

/// Makes the folder if need be, and checks that files can be made in it and that it is this user's alone.
fn prepare(folder: &Path) -> Result<(), String> {
    create_private(folder, true).map_err(|e| e.to_string())?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let probe = folder.join(format!("{}-{number}.tmp", std::process::id()));
    let written = write_new(&probe, &[]).map_err(|e| format!("not writable: {e}"));
    let checked = written.and_then(|()| check_owner(folder, &probe));
    if checked.is_ok() || probe.exists() {
        // A file of no bytes that stays behind harms nobody.
        let _ = std::fs::remove_file(&probe);
    }
    checked
}

/// Whether `folder` belongs to whoever made `probe`, and to nobody else.
#[cfg(unix)]
fn check_owner(folder: &Path, probe: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let about = |path: &Path| std::fs::metadata(path).map_err(|e| e.to_string());
    let (folder, probe) = (about(folder)?, about(probe)?);
    if folder.uid() != probe.uid() {
        return Err(format!("it belongs to user {}, not to {}", folder.uid(), probe.uid()));
    }
    if folder.mode() & 0o077 != 0 {
        return Err(format!("others can enter it (mode {:o}; 700 is needed)", folder.mode() & 0o777));
    }
    Ok(())
}

/// On Windows a folder under a user's profile is that user's.
#[cfg(not(unix))]
fn check_owner(_: &Path, _: &Path) -> Result<(), String> {
    Ok(())
}

/// Makes a folder that only this user can enter; with `recursive` also those above it, and it may be there already.
pub(super) fn create_private(folder: &Path, recursive: bool) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(recursive);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Writes a file that must not be there yet, for this user alone.
pub(super) fn write_new(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// A folder of this process's own for a while, which is gone afterwards.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut last = None;
        // A name that is taken is somebody else's; another number may be free.
        for _ in 0..16 {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            // In a container every process may have the same number; what a killed one has left behind is told by time.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let name = format!("normkit-{}-{number}-{:x}", std::process::id(), now.as_nanos());
            let folder = std::env::temp_dir().join(name);
            match create_private(&folder, false) {
                Ok(()) => return Ok(Temporary(folder)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| std::io::ErrorKind::AlreadyExists.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own sweeping.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty cache in a folder of its own.
    fn cache() -> (Temporary, Disk) {
        let folder = Temporary::new().unwrap();
        let disk = Disk::open(&Cache::Folder(folder.path().join("a/kernels")));
        (folder, disk)
    }

    const CONTENT: &[u8] = b"a kernel's code";

    #[test]
    fn what_is_kept_is_found_again() {
        let (folder, disk) = cache();
        let (one, two) = (Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert!(one != two);
        assert!(disk.get(&one, "so").is_none());
        let path = disk.put(&one, "so", CONTENT).unwrap();
        let again = Disk::open(&Cache::Folder(folder.path().join("a/kernels")));
        assert_eq!(again.get(&one, "so"), Some((path.clone(), CONTENT.to_vec())));
        assert!(again.get(&two, "so").is_none() && again.get(&one, "cubin").is_none());
        // Nothing but the file itself is left, and the file begins with the content.
        let files: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1);
        assert!(std::fs::read(&path).unwrap().starts_with(CONTENT));
    }

    #[test]
    fn damaged_and_foreign_files_are_not_used() {
        let (_folder, disk) = cache();
        let key = Key::of(&["a question"]);
        let path = disk.put(&key, "so", CONTENT).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(disk.get(&key, "so").is_none(), "cut to {len}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, damaged).unwrap();
            assert!(disk.get(&key, "so").is_none(), "damaged at {at}");
        }
        std::fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(disk.get(&key, "so").is_none());
        // Whole, but the answer to another question.
        let other = disk.put(&Key::of(&["another"]), "so", CONTENT).unwrap();
        std::fs::copy(other, &path).unwrap();
        assert!(disk.get(&key, "so").is_none());
        disk.put(&key, "so", CONTENT).unwrap();
        assert!(disk.get(&key, "so").is_some());
    }

    #[test]
    fn without_a_usable_folder_nothing_is_kept() {
        let folder = Temporary::new().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let key = Key::of(&["a question"]);
        for cache in [Cache::Off, Cache::Folder(file.clone()), Cache::Folder(file.join("below"))] {
            let disk = Disk::open(&cache);
            assert!(disk.put(&key, "so", CONTENT).is_none() && disk.get(&key, "so").is_none(), "{cache:?}");
        }
        // Gone after it was opened.
        let (folder, disk) = self::cache();
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(disk.put(&key, "so", CONTENT).is_none() && disk.get(&key, "so").is_none());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_this_users_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, disk) = cache();
        let path = folder.path().join("a/kernels");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let key = Key::of(&["a question"]);
        assert_eq!(mode(&disk.put(&key, "so", CONTENT).unwrap()), 0o600);
        for open in [0o750, 0o705, 0o711, 0o777] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(open)).unwrap();
            assert!(Disk::open(&Cache::Folder(path.clone())).get(&key, "so").is_none(), "mode {open:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(Disk::open(&Cache::Folder(path.clone())).get(&key, "so").is_some());
        // The root folder is another user's, or for root itself one that others can enter.
        let mine = path.join("mine");
        std::fs::write(&mine, "").unwrap();
        assert!(check_owner(&path, &mine).is_ok());
        assert!(check_owner(Path::new("/"), &mine).is_err());
        // As root another user's folder can be made.
        if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
            assert!(check_owner(&path, &mine).unwrap_err().contains("user 12345"));
        }
    }

    #[test]
    fn the_default_folder_follows_xdg() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            default_folder(&|name| match name {
                "XDG_CACHE_HOME" => xdg.map(PathBuf::from),
                "HOME" => home.map(PathBuf::from),
                _ => None,
            })
        };
        assert_eq!(with(Some("/x"), Some("/h")), Some("/x/normkit".into()));
        assert_eq!(with(None, Some("/h")), Some("/h/.cache/normkit".into()));
        assert_eq!(with(Some("x"), Some("/h")), Some("/h/.cache/normkit".into()));
        assert_eq!(with(Some("x"), None), None);
    }
}
