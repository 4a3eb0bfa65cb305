//! Reads the admin address as Prometheus and the kubelet do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::promptly;

/// GETs a path over plain HTTP: status and body.
pub async fn get(admin: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let exchanged = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = promptly("an admin request", exchanged).await.map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no answer but {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| format!("no status in {head:?}"))?, body.to_owned()))
}

/// What /metrics said at one moment.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    pub async fn scrape(admin: SocketAddr) -> Self {
        let (status, text) = get(admin, "/metrics").await.unwrap();
        assert_eq!(status, 200, "{text}");
        Self(text)
    }

    /// The sum of all series of `name` that have these labels, whatever others they have.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let series = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            let found_labels: Vec<&str> = found_labels.trim_end_matches('}').split(',').collect();
            let fits = found == name && wanted.iter().all(|label| found_labels.contains(&label.as_str()));
            fits.then(|| value.parse::<u64>().expect("a counter is a whole number"))
        });
        series.sum()
    }

    /// The values of a label of all series of `name`.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let start = format!("{label}=\"");
        let series = self.0.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let labels =
            series.filter_map(|line| line.split_once('{')?.1.split_once('}')).map(|(labels, _)| labels);
        labels
            .flat_map(|labels| labels.split(','))
            .filter_map(|pair| pair.strip_prefix(&start)?.strip_suffix('"'))
            .map(str::to_owned)
            .collect()
    }

    /// How many series `name` has.
    pub fn series(&self, name: &str) -> usize {
        self.0.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count()
    }
}
