use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::Part;
use super::super::document::{Group, GroupList, GroupMeta, Version};
use super::*;

const STALE_AFTER: Duration = Duration::from_mins(10);

fn part(group: &str, etag: Option<&'static str>) -> Part {
    let version = Version { version: "v1".to_owned(), ..Version::default() };
    let group = Group { metadata: GroupMeta { name: group.to_owned() }, versions: vec![version] };
    Part { list: GroupList::of(vec![group]), etag: etag.map(http::HeaderValue::from_static) }
}

fn peer(address: &str, ago: Duration) -> RememberedPeer {
    let served =
        Served { core: part("", Some("\"c\"")), groups: part("apps", None), version: "v1.36.2".to_owned() };
    let heard = Instant::now().checked_sub(ago).expect("not long ago");
    RememberedPeer { addresses: vec![address.parse().expect("an address")], served: Arc::new(served), heard }
}

fn remembered() -> Remembered {
    let api = SharedApi::of_definition("widgets.example.com").expect("a name");
    let peers = vec![
        peer("10.0.0.2:6443", Duration::from_mins(1)),
        peer("[fd00::3]:6443", Duration::from_secs(500)),
        peer("10.0.0.4:6443", Duration::from_secs(700)),
    ];
    Remembered { peers, apis: vec![(api, 3)] }
}

/// A folder with a file of this node.
fn written() -> (tempfile::TempDir, Memory, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = Memory::new(folder.path().join("new"), &["cp-1", "127.0.0.1:6443"]);
    memory.write(&remembered()).expect("a writable folder");
    let path = folder.path().join("new/peers.json");
    (folder, memory, path)
}

fn error(memory: &Memory) -> String {
    assert!(memory.load(STALE_AFTER).peers.is_empty());
    memory.try_load(STALE_AFTER).expect_err("not to be believed").to_string()
}

#[test]
fn what_was_written_is_read_again_unless_it_is_too_old() {
    let (_folder, memory, path) = written();
    let (before, after) = (remembered(), memory.load(STALE_AFTER));
    assert_eq!(after.apis, before.apis);
    assert_eq!(after.peers.len(), 2, "one was silent for too long");
    for (before, after) in before.peers.iter().zip(&after.peers) {
        assert_eq!(before.addresses, after.addresses);
        assert!(before.served.serves_the_same(&after.served), "{:?}", after.served);
        let drift = before.heard.elapsed().abs_diff(after.heard.elapsed());
        assert!(drift < Duration::from_secs(2), "{drift:?}");
    }
    let text = std::fs::read_to_string(path).expect("text");
    assert_eq!(text.matches("\"apps\"").count(), 1, "equal documents are written once");
}

#[test]
fn the_file_is_for_its_owner_alone_and_replaced_as_a_whole() {
    let (folder, memory, path) = written();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&folder.path().join("new"))), (0o600, 0o700));
    memory.write(&Remembered::default()).expect("written again");
    assert!(memory.load(STALE_AFTER).peers.is_empty());
    assert_eq!(
        std::fs::read_dir(folder.path().join("new")).expect("a folder").count(),
        1,
        "nothing is left over"
    );
}

/// A proxy and the one that replaces it, each process 1 of its container.
#[test]
fn two_that_write_at_once_leave_a_whole_file() {
    let (folder, memory, path) = written();
    std::thread::scope(|scope| {
        for content in [remembered(), Remembered::default()] {
            let memory = &memory;
            scope.spawn(move || (0..100).for_each(|_| memory.write(&content).expect("a writable folder")));
        }
        for _ in 0..100 {
            assert!(memory.try_load(STALE_AFTER).expect("a whole file").is_some());
        }
    });
    assert!(path.exists());
    assert_eq!(std::fs::read_dir(folder.path().join("new")).expect("a folder").count(), 1);
}

#[test]
fn a_file_that_is_damaged_foreign_or_of_another_version_is_not_believed() {
    let (_folder, memory, path) = written();
    let good = std::fs::read(&path).expect("a file");
    let text = String::from_utf8(good.clone()).expect("text");
    let other = Memory::new(memory.folder.clone(), &["cp-2", "127.0.0.1:6443"]);
    assert!(error(&other).contains("another node"), "{}", error(&other));
    let flipped = text.replace("10.0.0.2", "10.0.0.3");
    for (bytes, expected) in [
        (&good[..good.len() - 1], "damaged"),
        (&good[..good.len() / 2], "damaged"),
        (flipped.as_bytes(), "damaged"),
        (&good[..20], "not a file of this version"),
        (b"", "not a file of this version"),
        (b"\n", "not a file of this version"),
        (&vec![0; 100_000], "not a file of this version"),
        (text.replacen("\"version\":1", "\"version\":2", 1).as_bytes(), "not a file of this version"),
        (text.replacen(saved_format(), "other", 1).as_bytes(), "not a file of this version"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let error = error(&memory);
        assert!(
            error.contains(expected),
            "{error} for {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
    }
    std::fs::write(&path, good).expect("written");
    assert_eq!(memory.load(STALE_AFTER).peers.len(), 2);
}

fn saved_format() -> &'static str {
    "mvproxy-peers"
}

#[test]
fn a_file_that_others_could_have_written_is_not_believed() {
    let (folder, memory, path) = written();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).expect("own file");
    assert!(error(&memory).contains("only this user can write"), "{}", error(&memory));
    let elsewhere = folder.path().join("elsewhere");
    std::fs::rename(&path, &elsewhere).expect("own file");
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o600)).expect("own file");
    symlink(&elsewhere, &path).expect("own folder");
    assert!(error(&memory).contains("peers.json"), "a link is not followed");
    std::fs::remove_file(&path).expect("own file");
    std::fs::create_dir(&path).expect("own folder");
    assert!(error(&memory).contains("not a file"), "{}", error(&memory));
}

#[test]
fn a_file_of_any_size_is_not_read() {
    let (_folder, memory, path) = written();
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("own file");
    file.set_len(200 * 1024 * 1024).expect("a sparse file");
    assert!(error(&memory).contains("bytes, more than"), "{}", error(&memory));
}

#[test]
fn a_clock_that_was_ahead_makes_nobody_silent() {
    let (_folder, memory, _path) = written();
    let bytes = file::read(&memory.folder).expect("a file").expect("it is there");
    let saved = Saved::decode(&bytes, &memory.origin).expect("whole");
    let yesterday = SystemTime::now() - Duration::from_hours(24);
    assert_eq!(saved.into_remembered(yesterday, STALE_AFTER).peers.len(), 3);
}
