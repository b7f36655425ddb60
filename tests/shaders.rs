//! x
use normkit::backend::wgpu::*;
use normkit::prelude::*;
#[test]
fn smoke() {
    let device = WgpuDevice::new().unwrap();
    println!("{:?}", device.info());
    let n = 1024;
    let x: Vec<f64> = (0..4 * n).map(|i| ((i * 7919) % 1013) as f64 / 100.0 - 3.0).collect();
    let host = HostTensor::from_f64(&x, &[4, n], normkit::tensor::DType::F32).unwrap();
    let t = device.upload(&host).unwrap();
    assert_eq!(t.read().unwrap(), host);
    let y = LayerNorm::new([n]).forward(&t).unwrap().read().unwrap().to_f64();
    for r in 0..4 {
        let row = &x[r * n..][..n];
        let row: Vec<f64> = row.iter().map(|x| f64::from(*x as f32)).collect();
        let mean = row.iter().sum::<f64>() / n as f64;
        let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        for i in 0..n {
            let want = (row[i] - mean) / (var + 1e-5).sqrt();
            assert!((y[r * n + i] - want).abs() < 1e-6, "{r} {i} {} {want}", y[r * n + i]);
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    use normkit::tensor::*;
    use std::time::Instant;
    let device = WgpuDevice::new().unwrap();
    let (rows, n) = (4096, 1024);
    let x = device.zeros(&[rows, n], DType::F32).unwrap();
    let mut y = device.zeros(&[rows, n], DType::F32).unwrap();
    let w = device.zeros(&[n], DType::F32).unwrap();
    let alpha = device.zeros(&[1], DType::F32).unwrap();
    let time = |name: &str, f: &mut dyn FnMut()| {
        let t = Instant::now();
        f();
        device.wait().unwrap();
        let first = t.elapsed();
        let mut all: Vec<f64> = (0..9)
            .map(|_| {
                let t = Instant::now();
                f();
                device.wait().unwrap();
                t.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        all.sort_by(f64::total_cmp);
        println!("{name:30} first {:.1} ms, then {:.2} ms", first.as_secs_f64() * 1e3, all[4]);
    };
    for held in [0, 32] {
        let s = || normkit::Stream::Wgpu(device.stream().with_overrides(Overrides { held: Some(held), ..Default::default() }).unwrap());
        let raw = || device.stream().with_overrides(Overrides { held: Some(held), ..Default::default() }).unwrap();
        let v = x.view().unwrap();
        time(&format!("copy {held}"), &mut || copy(&v, &mut y.view_mut().unwrap(), &raw()).unwrap());
        let rms = RmsNorm::new([n]).weight(&w);
        time(&format!("rms {held}"), &mut || rms.forward_into(&v, &mut y.view_mut().unwrap(), None, &s()).unwrap());
        let ln = LayerNorm::new([n]).weight(&w).bias(&w);
        time(&format!("ln {held}"), &mut || ln.forward_into(&v, &mut y.view_mut().unwrap(), None, &s()).unwrap());
        let dyt = DyT::new([n]).alpha(&alpha).weight(&w).bias(&w);
        time(&format!("dyt {held}"), &mut || dyt.forward_into(&v, &mut y.view_mut().unwrap(), None, &s()).unwrap());
    }
}
