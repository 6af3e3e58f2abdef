//! How the cost of a job that does nothing grows: with the clients, with the jobs that wait, and with those that have ended. Drawn into
//! docs/growth.svg.

use plotters::prelude::*;
use plotters::style::register_font;
use trine::clock::Timestamp;

use crate::backlog::{HOLD_UP, ONE_PROCESS, queue};
use crate::noop::{self, CONNECTIONS, MINIMAL};
use crate::report::{Figure, print};
use crate::server::{Server, folder};
use crate::{Options, Result, history};

/// Powers of four, from one client on.
const CLIENTS: [usize; 6] = [1, 4, 16, 64, 256, 1_024];
/// How many jobs wait, or have ended; then as many as the options say.
const LENGTHS: [u64; 3] = [10_000, 100_000, 1_000_000];
const DRAWING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/growth.svg");

/// One curve: of what, how many, and jobs a second over those of the reference in the same round.
struct Curve {
    title: &'static str,
    points: Vec<(u64, Figure)>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let reference_folder = folder()?;
    let mut reference = Server::start(reference_folder.path(), &[]).await?;
    let curves =
        [clients(options, &mut reference).await?, waiting(options, &mut reference).await?, ended(options, &mut reference).await?];
    reference.stop().await?;
    let drawn = draw(&curves);
    for Curve { title, points } in curves {
        let figures: Vec<Figure> = points.into_iter().map(|(_, figure)| figure).collect();
        print(&format!("growth: jobs/s over those of 256 clients and an empty database, by {title}"), &figures);
    }
    drawn?;
    println!("drawn into {DRAWING}");
    Ok(())
}

async fn clients(options: &Options, reference: &mut Server) -> Result<Curve> {
    let mut points = Vec::new();
    for clients in CLIENTS {
        let mut figure = Figure::new(format!("{clients}"));
        for _ in 0..options.rounds {
            let many = rate(reference, CONNECTIONS, options).await?;
            figure.add(rate(reference, clients, options).await? / many);
        }
        points.push((clients as u64, figure));
    }
    Ok(Curve { title: "clients", points })
}

/// With jobs that wait for another executor.
async fn waiting(options: &Options, reference: &mut Server) -> Result<Curve> {
    let folder = folder()?;
    let mut server = Server::start(folder.path(), &ONE_PROCESS).await?;
    server.submit(&[HOLD_UP]).await?;
    let (mut points, mut there) = (Vec::new(), 0);
    for length in lengths(options.jobs) {
        queue(&mut server, length - there).await?;
        there = length;
        // Only those that do not wait have results.
        server.accepted = server.finished().await?;
        points.push((length, beside(options, reference, &mut server, length).await?));
    }
    server.kill().await?;
    Ok(Curve { title: "jobs that wait", points })
}

async fn ended(options: &Options, reference: &mut Server) -> Result<Curve> {
    let folder = folder()?;
    let (mut points, mut there) = (Vec::new(), 0);
    for length in lengths(options.results) {
        history::fill(folder.path(), length - there).await?;
        reference.reconnect().await?;
        there = length;
        let mut server = Server::start(folder.path(), &[]).await?;
        // Some of those that are there have failed, as planned.
        (server.accepted, server.since) = (server.finished().await?, Timestamp::now());
        points.push((length, beside(options, reference, &mut server, length).await?));
        server.stop().await?;
    }
    Ok(Curve { title: "jobs that have ended", points })
}

fn lengths(most: u64) -> Vec<u64> {
    LENGTHS.into_iter().filter(|length| *length < most).chain([most]).collect()
}

async fn beside(options: &Options, reference: &mut Server, server: &mut Server, length: u64) -> Result<Figure> {
    let mut figure = Figure::new(format!("{length}"));
    for _ in 0..options.rounds {
        let empty = rate(reference, CONNECTIONS, options).await?;
        figure.add(rate(server, CONNECTIONS, options).await? / empty);
    }
    Ok(figure)
}

async fn rate(server: &mut Server, clients: usize, options: &Options) -> Result<f64> {
    noop::rate(server, MINIMAL, clients, std::time::Duration::from_secs(options.seconds)).await
}

/// Such as 10k and 1M.
fn in_short(many: f64) -> String {
    match many {
        1e6.. => format!("{:.0}M", many / 1e6),
        1e3.. => format!("{:.0}k", many / 1e3),
        _ => format!("{many:.0}"),
    }
}

fn draw(curves: &[Curve]) -> Result<()> {
    register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "the font can't be used")?;
    let whole = SVGBackend::new(DRAWING, (960, 280)).into_drawing_area();
    whole.fill(&WHITE)?;
    for (area, Curve { title, points }) in whole.split_evenly((1, curves.len())).iter().zip(curves) {
        let points: Vec<(f64, f64)> = points.iter().map(|(many, figure)| (*many as f64, figure.median())).collect();
        let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { continue };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("jobs/s by {title}"), ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(24)
            .y_label_area_size(36)
            .build_cartesian_2d((*first..*last * 1.1).log_scale(), 0.0..1.2)?;
        chart.configure_mesh().disable_x_mesh().y_labels(7).x_label_formatter(&|many| in_short(*many)).draw()?;
        chart.draw_series([PathElement::new(points.clone(), BLUE)])?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, BLUE.filled())))?;
    }
    whole.present()?;
    Ok(())
}
