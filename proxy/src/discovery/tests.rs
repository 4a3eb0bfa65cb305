use super::*;

#[test]
fn every_member_begins_as_often_as_any_other() {
    let set: ServerSet = [1, 3, 63].into_iter().collect();
    for (turn, expected) in
        [(0, [1, 3, 63]), (1, [3, 63, 1]), (2, [63, 1, 3]), (3, [1, 3, 63]), (100, [3, 63, 1])]
    {
        assert_eq!(set.iter_from(turn).collect::<Vec<_>>(), expected, "turn {turn}");
    }
    assert_eq!(ServerSet::default().iter_from(5).count(), 0);
}

#[test]
fn the_local_server_is_told_from_peers() {
    let both: ServerSet = [0, 2].into_iter().collect();
    let peer: ServerSet = [2].into_iter().collect();
    assert!(both.has_local() && !peer.has_local() && !peer.is_empty());
}
