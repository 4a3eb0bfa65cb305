//! Frames and requests without end: the proxy takes no more than its answers are taken, or ends the connection.

use std::time::Duration;

use mvproxy::limits::TimeLimits;
use mvproxy_tests::client::connect_tls;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::frames::{END_HEADERS, ENHANCE_YOUR_CALM, Frames, Kind, block, frame, goaways};
use super::node::{NEVER, Node};
use super::resets::resident_bytes;
use super::support::{Http, bounded, promptly};

/// More than all buffers between a client and the proxy hold.
const FLOOD: usize = 64 << 20;
/// What they may hold: some MiB of the kernel's on each side.
const BUFFERS: usize = 24 << 20;
/// A connection on which nothing moved for this long does not move.
const STILL: Duration = Duration::from_secs(1);

fn patient() -> TimeLimits {
    TimeLimits { handshake: NEVER, header: NEVER, idle: NEVER }
}

/// Writes the same again and again until nothing is taken any more, and returns how many bytes were.
async fn write_until_stuck(bytes: &[u8], writer: &mut (impl AsyncWrite + Unpin)) -> usize {
    let chunk = bytes.repeat((64 << 10) / bytes.len());
    let mut written = 0;
    while written < FLOOD {
        match timeout(STILL, writer.write(&chunk)).await {
            Ok(Ok(taken)) => written += taken,
            Ok(Err(_)) | Err(_) => return written,
        }
    }
    written
}

async fn is_taken_in_measure(node: &Node, what: &str, flood: &[u8], writer: &mut (impl AsyncWrite + Unpin)) {
    let before = resident_bytes();
    let written = node.serves_others_during(write_until_stuck(flood, writer)).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(written < BUFFERS, "{what}: {written} bytes were taken");
    assert!(grown < BUFFERS, "{what}: the process grew by {grown} bytes");
}

#[test]
fn answers_that_nobody_reads_stop_a_flood_of_frames() {
    bounded(async {
        let node = Node::start(&[], patient()).await;
        for (what, flood) in [
            ("PING", frame(Kind::Ping, 0, 0, &[1; 8])),
            ("SETTINGS", frame(Kind::Settings, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ] {
            let mut frames = Frames::start(&node.alice(), node.address()).await;
            is_taken_in_measure(&node, what, &flood, &mut frames.writer).await;
        }
    });
}

#[test]
fn answers_that_nobody_reads_stop_a_flood_of_requests() {
    bounded(async {
        let node = Node::start(&[], patient()).await;
        let mut stream = connect_tls(&node.alice().options(node.address(), Http::One)).await.unwrap();
        let flood = b"GET /version HTTP/1.1\r\nHost: k\r\n\r\n";
        is_taken_in_measure(&node, "pipelined requests", flood, &mut stream).await;
    });
}

#[test]
fn empty_data_without_end_ends_the_connection() {
    bounded(async {
        let node = Node::start(&[], patient()).await;
        let Frames { mut reader, mut writer } = Frames::start(&node.alice(), node.address()).await;
        let post = block("POST", "/api/v1/namespaces/default/configmaps");
        writer.write_all(&frame(Kind::Headers, END_HEADERS, 1, &post)).await.unwrap();
        let empty = frame(Kind::Data, 0, 1, &[]);
        let ended = async { tokio::join!(reader.rest(), write_until_stuck(&empty, &mut writer)).0 };
        let said = promptly("the connection ends", node.serves_others_during(ended)).await;
        assert_eq!(goaways(&said), [ENHANCE_YOUR_CALM], "{} frames", said.len());
    });
}
