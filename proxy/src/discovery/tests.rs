use super::*;

#[test]
fn a_set_is_walked_from_any_start_and_wraps_around() {
    let set: ServerSet = [1, 3, 63].into_iter().collect();
    for (start, expected) in [
        (0, [1, 3, 63]),
        (1, [1, 3, 63]),
        (2, [3, 63, 1]),
        (4, [63, 1, 3]),
        (63, [63, 1, 3]),
        (64, [1, 3, 63]),
    ] {
        assert_eq!(set.iter_from(start).collect::<Vec<_>>(), expected, "from {start}");
    }
    assert_eq!(ServerSet::default().iter_from(5).count(), 0);
}

#[test]
fn the_local_server_is_told_from_peers() {
    let both: ServerSet = [0, 2].into_iter().collect();
    let peer: ServerSet = [2].into_iter().collect();
    assert!(both.has_local() && !peer.has_local() && !peer.is_empty());
}
