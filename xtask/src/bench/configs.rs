//! Writes the configurations of haproxy and nginx: TLS on both legs, verified upstream, one thread, connections kept.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::place::Folder;

/// haproxy as a file. Everything that is not named here is its default.
pub(crate) fn haproxy(
    folder: &Folder,
    listen: SocketAddr,
    backend: SocketAddr,
    http2_upstream: bool,
) -> String {
    let (pem, ca) = (folder.pem().display().to_string(), folder.ca().display().to_string());
    let protocol = if http2_upstream { "alpn h2" } else { "alpn http/1.1" };
    let mut text = String::new();
    for line in [
        "global",
        "  nbthread 1",
        "  maxconn 9000",
        "  tune.ssl.default-dh-param 2048",
        "defaults",
        "  mode http",
        "  option forwardfor",
        "  http-reuse always",
        "  timeout connect 5s",
        "  timeout client 1h",
        "  timeout server 1h",
        "  timeout http-keep-alive 1h",
        "frontend clients",
    ] {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "  bind {listen} ssl crt {pem} alpn h2,http/1.1");
    let _ = writeln!(text, "  default_backend servers\nbackend servers");
    let _ = writeln!(
        text,
        "  server local {backend} ssl verify required ca-file {ca} sni str(kubernetes) \
         verifyhost kubernetes {protocol} maxconn 15000 pool-max-conn 15000 pool-purge-delay 1h"
    );
    text
}

/// nginx as a file. It speaks HTTP/1.1 upstream and can do no other. Its limit of 1,000 requests a connection is lifted;
/// what does not fit into its buffers waits upstream, not on disk. Watches turn its buffers off by `X-Accel-Buffering`.
pub(crate) fn nginx(folder: &Folder, listen: SocketAddr, backend: SocketAddr) -> String {
    let path = |name: &str| folder.node().join(name).display().to_string();
    let mut text = format!(
        "daemon off;\nworker_processes 1;\npid {};\nerror_log {} error;\nworker_rlimit_nofile 20000;\n\
         events {{ worker_connections 19000; }}\nhttp {{\naccess_log off;\n",
        folder.file("nginx.pid").display(),
        folder.file("nginx.log").display(),
    );
    // nginx makes these folders at its start, even if nothing is ever put into them.
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {};", folder.file(&format!("nginx-{kind}")).display());
    }
    let _ = write!(
        text,
        "upstream servers {{\n  server {backend};\n  keepalive 10000;\n  keepalive_requests 1000000000;\n  \
         keepalive_timeout 1h;\n}}\nserver {{\n  listen {listen} ssl http2;\n  ssl_certificate {};\n  \
         ssl_certificate_key {};\n  ssl_protocols TLSv1.3;\n  ssl_session_cache shared:sessions:10m;\n",
        path("apiserver.crt"),
        path("apiserver.key"),
    );
    for line in [
        "keepalive_requests 1000000000",
        "keepalive_timeout 1h",
        "client_max_body_size 0",
        "client_body_buffer_size 256k",
        "http2_max_concurrent_streams 128",
        "proxy_http_version 1.1",
        "proxy_set_header Connection \"\"",
        "proxy_set_header X-Forwarded-For $remote_addr",
        "proxy_ssl_verify on",
        "proxy_ssl_name kubernetes",
        "proxy_ssl_server_name on",
        "proxy_ssl_protocols TLSv1.3",
        "proxy_max_temp_file_size 0",
        "proxy_read_timeout 1h",
    ] {
        let _ = writeln!(text, "  {line};");
    }
    let ca = folder.ca().display().to_string();
    let _ = write!(
        text,
        "  proxy_ssl_trusted_certificate {ca};\n  location / {{ proxy_pass https://servers; }}\n}}\n}}\n"
    );
    text
}
