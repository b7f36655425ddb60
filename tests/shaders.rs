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
