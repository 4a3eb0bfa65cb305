//! Orders the union of lists so that each list's own order is kept where that is possible.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use hashbrown::{HashMap, HashSet};

/// The built-in proxy's rule (`MergePreservingRelativeOrder` in k8s.io/apimachinery): a list that has everything is the
/// order; else a topological order over neighbours, the tie-break choosing among what is free; else the tie-break alone.
pub(super) fn merge_order<'a>(
    lists: &[Vec<&'a str>],
    tie_break: impl Fn(&str, &str) -> Ordering,
) -> Vec<&'a str> {
    let all: HashSet<&str> = lists.iter().flatten().copied().collect();
    let is_complete = |list: &&Vec<&'a str>| {
        list.len() >= all.len() && list.iter().collect::<HashSet<_>>().len() == all.len()
    };
    if let Some(complete) = lists.iter().find(is_complete) {
        let mut seen = HashSet::with_capacity(all.len());
        return complete.iter().copied().filter(|name| seen.insert(*name)).collect();
    }
    let mut sorted: Vec<&str> = all.into_iter().collect();
    sorted.sort_by(|a, b| tie_break(a, b));
    topological(lists, &sorted).unwrap_or(sorted)
}

/// Kahn's algorithm, always taking the free name that is first in `sorted`; `None` when the lists contradict.
fn topological<'a>(lists: &[Vec<&'a str>], sorted: &[&'a str]) -> Option<Vec<&'a str>> {
    let rank: HashMap<&str, usize> = sorted.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
    let mut later: Vec<Vec<usize>> = vec![Vec::new(); sorted.len()];
    let mut earlier = vec![0_usize; sorted.len()];
    for pair in lists.iter().flat_map(|list| list.windows(2)) {
        later[rank[pair[0]]].push(rank[pair[1]]);
        earlier[rank[pair[1]]] += 1;
    }
    let mut free: BinaryHeap<Reverse<usize>> =
        (0..sorted.len()).filter(|rank| earlier[*rank] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(sorted.len());
    while let Some(Reverse(next)) = free.pop() {
        order.push(sorted[next]);
        for one in &later[next] {
            earlier[*one] -= 1;
            if earlier[*one] == 0 {
                free.push(Reverse(*one));
            }
        }
    }
    (order.len() == sorted.len()).then_some(order)
}
